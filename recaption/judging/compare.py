"""Two caption sets side by side: paired differences over the same pictures.

A difference is one of these captions on these pictures. It does not say that one captioner is
better than another, nor what a model trained on either will do: both were run once, and an interval
over pictures does not know what another training or another decoding would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from curate.base.errors import CaplabError, ConfigError
from curate.scoring.scorers.clip import Clip
from curate.store.dataset import Dataset
from recaption.judging.caption_sets import CaptionSet, sample_captions
from recaption.judging.doubts import Family, chance_doubt, kin_doubt
from recaption.judging.fingerprint import fingerprint
from recaption.judging.intervals import Column, Estimate, mean_difference, ratio_difference
from recaption.judging.measure import text_columns
from recaption.judging.retrieval import over_groups, retrieval, stored_alt_hits
from recaption.judging.settings import JudgeSettings
from recaption.judging.truth import Truth, TruthCounts
from recaption.measure.token_counts import TokenCounter

_RETRIEVAL = "retrieval R@1 of 64"
_BY_CLIP = ("clip_similarity", "clip_sentence_mean", _RETRIEVAL)
LABEL = "a difference of these captions on these pictures, not of what their captioners can do"


@dataclass(frozen=True)
class Difference:
    """One measure: mean (or pooled share) of either set, and a - b over the same pictures."""

    measure: str
    a: float
    b: float
    difference: Estimate
    doubted: bool = False
    """Whether its judge is no judge of these sets; the comparison's notes say why."""

    @property
    def starred(self) -> bool:
        """Whether the whole interval lies on one side of zero, by a judge without doubt."""
        beyond = self.difference.low > 0 or self.difference.high < 0
        return beyond and not self.doubted


@dataclass(frozen=True)
class Comparison:
    """Set `a` against set `b`.

    Attributes:
        pictures: with captions of both, in the sample.
        differences: in the order of a table; a measure that neither set has is left out.
        fingerprint: how well a classifier tells the two apart; None where it was not asked for.
        notes: what was not measured, and why.
    """

    a: CaptionSet
    b: CaptionSet
    pictures: int
    differences: list[Difference]
    fingerprint: Estimate | None
    notes: tuple[str, ...] = ()
    label: str = LABEL


def compare_captions(
    dataset: Dataset,
    a: CaptionSet,
    b: CaptionSet,
    settings: JudgeSettings,
    clip: Clip | None = None,
    truth: Truth | None = None,
    families: Sequence[Family] = (),
) -> Comparison:
    """Compare two sets on the pictures that have captions of both.

    Args:
        clip, truth, families: as for measure_captions.

    Raises:
        ConfigError: the sets are the same, or share no picture.
    """
    if a == b:
        raise ConfigError(f"{a.name} cannot be compared with itself; name two caption sets.")
    sample = sample_captions(dataset, [a, b], settings.sample, settings.seed)
    if not sample.shared:
        raise ConfigError(f"No picture has accepted captions of both {a.name} and {b.name}.")
    differences, notes = [], []
    tokens = TokenCounter(settings.t5_tokenizer)
    ours, theirs = (text_columns(sample.tables[one], tokens) for one in (a, b))
    for name in ("words", "clip_tokens", "t5_tokens", "clip_similarity", "clip_sentence_mean"):
        if np.isnan(ours[name] - theirs[name]).all():
            if name.startswith("clip_"):
                notes.append(f"{name} is not in the captions table; `caplab score` computes it")
        else:
            differences.append(_means(name, ours[name], theirs[name], settings))
    doubts = [kin_doubt(dataset, one, families) for one in (a, b)]
    if clip is None and settings.retrieval_groups:
        stored = stored_alt_hits(dataset, settings.retrieval_groups, settings.seed)
        doubts += [] if stored is None else [chance_doubt("alt texts", over_groups(stored))]
    elif clip is not None:
        try:
            found = retrieval(dataset, [a, b], clip, settings.retrieval_groups, settings.seed)
        except CaplabError as error:  # without embeddings the other measures still stand
            notes.append(f"retrieval was not measured: {str(error).rstrip('.')}")
        else:
            if found.reason:
                notes.append(f"retrieval was not measured: {found.reason}")
            else:
                hits, other = found.hits[a], found.hits[b]
                doubts += [chance_doubt(one.name, over_groups(found.hits[one])) for one in (a, b)]
                gap = over_groups(hits - other)
                differences.append(
                    Difference(_RETRIEVAL, float(hits.mean()), float(other.mean()), gap)
                )
    reasons = [doubt for doubt in doubts if doubt is not None]
    if reasons:  # all that was measured so far and is no length is CLIP's
        differences = [
            replace(row, doubted=row.measure.startswith(_BY_CLIP)) for row in differences
        ]
    if truth is not None:
        known = sample_captions(dataset, [a, b], settings.sample, settings.seed, truth.keys())
        if known.shared:
            counts = [truth.judge(known.keys, known.texts(one)) for one in (a, b)]
            differences += _truths(counts[0], counts[1], settings)
        else:
            notes.append("no picture with captions of both has a known truth")
    told = None
    if settings.fingerprint_pictures:
        count = settings.fingerprint_pictures
        texts = [sample.texts(one)[:count] for one in (a, b)]
        told = fingerprint(texts[0], texts[1], settings.draws, settings.seed)
    return Comparison(a, b, len(sample.keys), differences, told, (*notes, *reasons))


def _means(name: str, a: Column, b: Column, settings: JudgeSettings) -> Difference:
    known = ~np.isnan(a - b)
    return Difference(
        name,
        float(a[known].mean()),
        float(b[known].mean()),
        mean_difference(a, b, settings.draws, settings.seed),
    )


def _truths(a: TruthCounts, b: TruthCounts, settings: JudgeSettings) -> list[Difference]:
    """Precision, recall and hallucinations, pooled over pictures and resampled together."""
    ones = np.ones(len(a.mentions))
    ratios = {}
    for kind, ours in a.tallies.items():
        theirs = b.tallies[kind]
        ratios[f"{kind} precision"] = (ours.right, ours.stated), (theirs.right, theirs.stated)
        ratios[f"{kind} recall"] = (ours.found, ours.there), (theirs.found, theirs.there)
    ratios["CHAIR_i"] = (a.hallucinated, a.mentions), (b.hallucinated, b.mentions)
    ratios["CHAIR_s"] = (
        ((a.hallucinated > 0).astype(float), ones),
        ((b.hallucinated > 0).astype(float), ones),
    )
    found = []
    for name, (ours_, theirs_) in ratios.items():
        if ours_[1].sum() and theirs_[1].sum():
            one, other = (float(above.sum() / below.sum()) for above, below in (ours_, theirs_))
            gap = ratio_difference(ours_, theirs_, settings.draws, settings.seed)
            found.append(Difference(name, one, other, gap))
    return found
