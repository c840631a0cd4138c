"""All measures of all sets: exact counts, texts of a shared sample, CLIP, truth, fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curate.base.errors import CaplabError
from curate.base.progress import advance
from curate.scoring.scorers.clip import Clip
from curate.store.dataset import Dataset
from recaption.gates.gates import count_words
from recaption.judging.caption_sets import CaptionSample, CaptionSet, find_sets, sample_captions
from recaption.judging.counts import WINDOW, SetCounts, count_set
from recaption.judging.doubts import Family, chance_doubt, kin_doubt
from recaption.judging.fingerprint import LEAST_PICTURES, fingerprint
from recaption.judging.habits import Habits, habits
from recaption.judging.intervals import Column, Estimate
from recaption.judging.retrieval import Retrieval, over_groups, retrieval, stored_alt_hits
from recaption.judging.settings import JudgeSettings
from recaption.judging.truth import Rightness, Truth, rightness
from recaption.judging.variety import distinct, distinct_texts, mattr, openings, words_of
from recaption.measure.token_counts import TokenCounter


@dataclass(frozen=True)
class Spread:
    """Mean and quantiles of a length; nan where it is not known. `over` = share above 77."""

    mean: float
    p5: float
    p50: float
    p95: float
    over: float

    @classmethod
    def of(cls, values: Column) -> Spread:
        """Of the values that are known."""
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(*[float("nan")] * 5)
        p5, p50, p95 = (float(q) for q in np.quantile(known, [0.05, 0.5, 0.95]))
        return cls(float(known.mean()), p5, p50, p95, float((known > WINDOW).mean()))


@dataclass(frozen=True)
class SampleMeasures:
    """What the sampled captions of a set are like.

    Attributes:
        captions: how many were read, one a picture.
        words, clip_tokens, t5_tokens: lengths.
        distinct_1, distinct_2: over equally many words of every set.
        mattr, distinct_texts, openings: see recaption.judging.variety.
        habits: see recaption.judging.habits.
    """

    captions: int
    words: Spread
    clip_tokens: Spread
    t5_tokens: Spread
    distinct_1: float
    distinct_2: float
    mattr: float
    distinct_texts: float
    openings: dict[str, float]
    habits: Habits


@dataclass(frozen=True)
class SetMeasures:
    """One set: exact counts, and what needs its texts; None where it was not measured.

    `doubts`: why CLIP's similarities do not judge it, see recaption.judging.doubts.
    """

    set: CaptionSet
    counts: SetCounts
    sample: SampleMeasures | None
    retrieval: Estimate | None
    retrieval_shuffled: Estimate | None
    rightness: Rightness | None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fingerprint:
    """How well a classifier tells two sets apart, on pictures with captions of both."""

    a: CaptionSet
    b: CaptionSet
    accuracy: Estimate


@dataclass(frozen=True)
class MeasuredSets:
    """Everything that was measured.

    Attributes:
        shared: whether the samples of all sets are of the same pictures.
        candidates: pictures with an accepted caption of every set (shared), or of the largest set.
        words_compared: words of each set that distinct-1 and -2 were taken over.
        groups: groups of 64 pictures in the retrieval, 0 where it was not measured, for `reason`.
        truth: name of the ground truth, and `truth_notes` on it; empty without one.
        few: sets of people with too few captions for the shared sample; they were counted alone.
    """

    sets: list[SetMeasures]
    shared: bool
    candidates: int
    words_compared: int
    fingerprints: list[Fingerprint] = field(default_factory=list)
    groups: int = 0
    reason: str = ""
    truth: str = ""
    truth_notes: tuple[str, ...] = ()
    few: tuple[CaptionSet, ...] = ()


def measure_captions(
    dataset: Dataset,
    settings: JudgeSettings,
    clip: Clip | None = None,
    truth: Truth | None = None,
    clip_reason: str = "",
    families: Sequence[Family] = (),
) -> MeasuredSets:
    """Measure the sets that the settings name.

    Args:
        clip: the model whose picture embeddings are stored; None measures no retrieval, for
            `clip_reason`, but for that of alt texts, whose embeddings are stored as well.
        truth: what the pictures show.
        families: weights of one maker each, for captioners that their own maker's CLIP judges.

    Raises:
        ConfigError: a source, kind or tokenizer that is not there; before any work.
        DatasetError: there are no captions.

    `advance` is called three times. Memory and time: counts scan the tables in DuckDB; all else
    reads at most `sample` captions of each set, whatever the dataset's size.
    """
    sets = find_sets(dataset, settings.sources, settings.kinds)
    tokens = TokenCounter(settings.t5_tokenizer)
    counts = {one: count_set(dataset, one) for one in sets}
    advance()
    spoken = [one for one in sets if counts[one].accepted]
    few = [] if settings.kinds or settings.sources else _few(counts)
    shared = [one for one in spoken if one not in few]
    sample = (
        sample_captions(dataset, shared, settings.sample, settings.seed)
        if shared
        else CaptionSample((), {}, False, 0)
    )
    measured, compared = _sampled(sample, shared, tokens)
    advance()
    found = (
        _retrieval(dataset, shared, sample.shared, clip, settings)
        if clip is not None
        else {one: _unread(dataset, one, clip_reason, settings) for one in shared}
    )
    advance()
    first = {one: _share_found(found[one].hits.get(one)) for one in found}
    right = _rightness(dataset, shared, truth, settings) if truth is not None else {}
    groups = [result.groups for result in found.values()]
    return MeasuredSets(
        sets=[
            SetMeasures(
                one,
                counts[one],
                measured.get(one),
                first.get(one),
                _share_found(found[one].shuffled.get(one)) if one in found else None,
                right.get(one),
                _doubts(dataset, one, first.get(one), families),
            )
            for one in sets
        ],
        shared=sample.shared,
        candidates=sample.candidates,
        words_compared=compared,
        fingerprints=_fingerprints(dataset, spoken, settings),
        groups=min(groups, default=0),
        reason=next((result.reason for result in found.values() if result.reason), ""),
        truth=truth.name if truth is not None else "",
        truth_notes=truth.notes if truth is not None else (),
        few=tuple(few),
    )


def _few(counts: Mapping[CaptionSet, SetCounts]) -> list[CaptionSet]:
    """Sets of people that would shrink the pictures on which all sets are compared to under half.

    Who marks three captions wants to go on comparing the captioners on all pictures.
    """
    accepted = {one: counts[one].accepted for one in counts if counts[one].accepted}
    others = [count for one, count in accepted.items() if not one.is_of_people]
    least = min(others, default=0) / 2
    return [one for one, count in accepted.items() if one.is_of_people and count < least]


def _doubts(
    dataset: Dataset, one: CaptionSet, first: Estimate | None, families: Sequence[Family]
) -> tuple[str, ...]:
    found = (chance_doubt(one.name, first), kin_doubt(dataset, one, families))
    return tuple(doubt for doubt in found if doubt is not None)


def text_columns(table: pa.Table, tokens: TokenCounter) -> dict[str, Column]:
    """words, clip_tokens, t5_tokens, clip_similarity and clip_sentence_mean of a sample: (N,).

    Tokens that the captions table does not tell are counted here; T5's only with a tokenizer.
    What stays unknown is nan.
    """
    texts = table.column("text").to_pylist()
    columns = {
        name: np.array([np.nan if v is None else v for v in table.column(name).to_pylist()], float)
        for name in ("clip_tokens", "t5_tokens", "clip_similarity", "clip_sentence_mean")
    }
    columns["words"] = count_words(texts).astype(float)
    missing = np.flatnonzero(np.isnan(columns["clip_tokens"]))
    columns["clip_tokens"][missing] = tokens.clip([texts[row] for row in missing])
    missing = np.flatnonzero(np.isnan(columns["t5_tokens"]))
    columns["t5_tokens"][missing] = np.array(tokens.t5([texts[row] for row in missing]), float)
    return columns


def _sampled(
    sample: CaptionSample, sets: Sequence[CaptionSet], tokens: TokenCounter
) -> tuple[dict[CaptionSet, SampleMeasures], int]:
    """The measures of each set's texts, and how many words distinct-n was taken over."""
    texts = {one: sample.texts(one) for one in sets}
    words = {one: [words_of(text) for text in texts[one]] for one in sets}
    compared = min((sum(map(len, words[one])) for one in sets), default=0)
    measured = {}
    for one in sets:
        columns = text_columns(sample.tables[one], tokens)
        singles, pairs = distinct(words[one], compared)
        measured[one] = SampleMeasures(
            captions=len(texts[one]),
            words=Spread.of(columns["words"]),
            clip_tokens=Spread.of(columns["clip_tokens"]),
            t5_tokens=Spread.of(columns["t5_tokens"]),
            distinct_1=singles,
            distinct_2=pairs,
            mattr=mattr(words[one]),
            distinct_texts=distinct_texts(texts[one]),
            openings=openings(words[one]),
            habits=habits(texts[one]),
        )
    return measured, compared


def _retrieval(
    dataset: Dataset,
    sets: Sequence[CaptionSet],
    shared: bool,
    clip: Clip,
    settings: JudgeSettings,
) -> dict[CaptionSet, Retrieval]:
    """R@1 of each set, on the same pictures where all sets share some."""
    together = [list(sets)] if shared else [[one] for one in sets]
    found: dict[CaptionSet, Retrieval] = {}
    for some in together:
        try:
            result = retrieval(dataset, some, clip, settings.retrieval_groups, settings.seed)
        except CaplabError as error:  # missing embeddings leave out this measure, and say why
            result = Retrieval({}, {}, str(error).rstrip("."))
        found |= dict.fromkeys(some, result)
    return found


def _unread(dataset: Dataset, one: CaptionSet, reason: str, settings: JudgeSettings) -> Retrieval:
    """What is known of R@1 where no model is loaded: that of alt texts, by what is stored."""
    if not one.is_human or not settings.retrieval_groups:
        return Retrieval({}, {}, reason)
    hits = stored_alt_hits(dataset, settings.retrieval_groups, settings.seed)
    return Retrieval({} if hits is None else {one: hits}, {}, reason)


def _share_found(hits: Column | None) -> Estimate | None:
    """A share of hits, its t interval cut at 0 and 1."""
    if hits is None:
        return None
    found = over_groups(hits)
    low, high = (float(np.clip(limit, 0, 1)) for limit in (found.low, found.high))
    return Estimate(found.value, low, high, found.pictures)


def _rightness(
    dataset: Dataset, sets: Sequence[CaptionSet], truth: Truth, settings: JudgeSettings
) -> dict[CaptionSet, Rightness]:
    sample = sample_captions(dataset, sets, settings.sample, settings.seed, among=truth.keys())
    found = {}
    for one in sets:
        keys = sample.tables[one].column("key").to_pylist()
        if keys:
            counted = truth.judge(keys, sample.texts(one))
            found[one] = rightness(counted, settings.draws, settings.seed)
    return found


def _fingerprints(
    dataset: Dataset, sets: Sequence[CaptionSet], settings: JudgeSettings
) -> list[Fingerprint]:
    """Each set against the alt texts, and captioners against one another where kinds agree."""
    if not settings.fingerprint_pictures:
        return []
    every = find_sets(dataset)
    pairs = [(one, human) for human in every if human.is_human for one in sets if one != human]
    machine = [one for one in sets if not one.is_human]
    pairs += [(a, b) for i, a in enumerate(machine) for b in machine[i + 1 :] if a.kind == b.kind]
    found = []
    for a, b in pairs:
        sample = sample_captions(dataset, [a, b], settings.fingerprint_pictures, settings.seed)
        if sample.shared and len(sample.keys) >= LEAST_PICTURES:
            accuracy = fingerprint(sample.texts(a), sample.texts(b), settings.draws, settings.seed)
            found.append(Fingerprint(a, b, accuracy))
    return found
