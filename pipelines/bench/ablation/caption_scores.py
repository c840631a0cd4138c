"""Which score of captions, taken before a step is trained, tells what a model trained on them does?

A caption set is what an arm draws from: kinds and their shares, of one selection. Its score is that
of its captions, averaged by share over a sample of pictures:

    clip, clip_sentences   CLIP similarity of picture and caption, whole and mean of its sentences
    words, clip_tokens     length
    detector_...           facts of the caption held against what a detector sees in the picture
                           (the world's parser), over objects, their attributes, places and the
                           background: precision, the statements that it agrees with; recall, what
                           it sees that can be read from the caption; f1, both
    truth_...              the same against the truth: nobody has it, and no score of facts tells
                           more

Beside each stands Spearman's rank correlation with the arms' result, the mean of the study's
primary metric, place and wording over training seeds. Its interval is a percentile bootstrap over
caption sets, and over the seeds of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.scoring.captions import caption_scores, picture_embeddings
from curate.scoring.scorers.clip import Clip
from curate.store.captions import accepted_captions, caption_writers, captioned_keys
from curate.store.dataset import Dataset
from pipelines.ablation.kept import Kept
from pipelines.bench.ablation.result_tables import markdown, stored, write_lines
from pipelines.judges.round_trip import read_pictures
from pipelines.world import weights
from pipelines.world.caption_truth import compare, world_truth
from pipelines.world.facts import facts
from pipelines.world.parse import parse
from pipelines.world.scene import Scene, WorldConfig
from recaption.measure.token_counts import CACHED, TokenCounter
from recaption.structured.prose import from_caption, prose
from recaption.structured.schema import Unread

Floats = NDArray[np.float64]

PICTURES = 500
"""Pictures whose captions are scored."""
DRAWS = 10_000
_SIDE = 64  # of the stored pictures
SEEN_AS = ("object", "attribute", "relation", "background")
"""Facts that a caption states, and that can be asked for."""
SCORES: Mapping[str, str] = {
    "clip": "CLIP similarity, whole",
    "clip_sentences": "CLIP similarity, mean of sentences",
    "words": "length in words",
    "clip_tokens": "length in CLIP's tokens",
    "detector_precision": "statements that a detector agrees with",
    "detector_recall": "detected facts that can be read from the caption",
    "detector_f1": "both (F1)",
    "truth_precision": "statements that are true (needs the truth)",
    "truth_recall": "true facts that can be read from the caption (needs the truth)",
    "truth_f1": "both (F1; needs the truth)",
}


@dataclass
class CaptionSet:
    """One caption set: what it is drawn from, and what models trained on it reached.

    Attributes:
        kinds: kind -> share; they sum to 1.
        results: training seed -> the primary metric's mean over prompts.
    """

    name: str
    kinds: Mapping[str, float]
    results: dict[int, float] = field(default_factory=dict)


def caption_sets(out: Path, names: Sequence[str], selection: str) -> dict[str, CaptionSet]:
    """The sets of all studies' arms on one selection, by recipe: equal arms are one set."""
    found: dict[str, CaptionSet] = {}
    for name in names:
        kept = Kept.open(out / name)
        arms = kept.settings.all_arms
        primary = kept.settings.primary
        means = {
            row["arm"]: row["per_seed"]
            for row in pq.read_table(out / name / "results" / "arms.parquet").to_pylist()
            if (row["form"], row["wording"], row["group"], row["metric"])
            == (primary.form, primary.wording, "all", primary.metric)
        }
        cells: dict[str, list[Any]] = {}
        for cell in kept.cells:
            cells.setdefault(cell.arm, []).append(cell)
        for arm, own in cells.items():
            if (arms[arm].selection or kept.settings.selection) != selection:
                continue
            recipe = own[0].run_id.partition("/")[0]
            one = found.setdefault(recipe, CaptionSet(arm, arms[arm].captions))
            seeds = sorted(cell.seed for cell in own)
            one.results |= dict(zip(seeds, means[arm], strict=True))
    return found


def scored_kinds(
    dataset: Dataset, truth: Path, kinds: Sequence[str], selection: str, count: int
) -> dict[str, dict[str, float]]:
    """Kind -> the SCORES of its captions, all on the same `count` pictures."""
    sources = caption_writers(dataset, kinds)
    keys = set(dataset.selection_keys(selection))
    for kind, source in sources.items():
        keys &= captioned_keys(dataset, kind, source)
    chosen = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())[:count]
    scenes = world_truth(dataset, truth).scenes
    clip = Clip(f"local-dir:{weights.clip_dir()}", None)
    clip.open()
    images = _embeddings(dataset, clip, set(chosen))
    seen = _detected(dataset, chosen)
    counter = TokenCounter(CACHED)
    found = {}
    for kind in kinds:
        rows = accepted_captions(dataset, [kind], {kind: sources[kind]}).to_pylist()
        own = [row for row in rows if row["key"] in images]
        texts = [row["text"] for row in own]
        read = [_prose(text) for text in texts]
        picture = np.stack([images[row["key"]] for row in own])
        whole, _, _, sentences, *_ = caption_scores(clip, picture, read)
        found[kind] = {
            "clip": float(np.nanmean(whole)),
            "clip_sentences": float(np.nanmean(sentences)),
            "words": float(np.mean([len(text.split()) for text in texts])),
            "clip_tokens": float(np.mean(counter.clip(texts))),
            **_agreement("detector", read, [seen[row["key"]] for row in own]),
            **_agreement("truth", read, [scenes[row["key"]] for row in own]),
        }
    return found


def rank_correlation(
    scores: Floats, results: Sequence[Sequence[float]], seed: int = 0
) -> tuple[float, float, float]:
    """Spearman's correlation of N scores with the means of N lists of seeds, and its 95% limits.

    The limits are percentiles of DRAWS draws of N sets with replacement, each with as many of its
    seeds, with replacement too; a draw in which all scores or all means are alike has no order and
    is left out. NaN where there is none at all.
    """
    rng = np.random.default_rng(seed)
    count = len(scores)
    means = np.array([np.mean(own) for own in results])
    drawn = rng.integers(0, count, (DRAWS, count))
    again = np.stack(
        [np.mean(rng.choice(own, (DRAWS, len(own))), axis=1) for own in map(np.asarray, results)], 1
    )
    found = _spearman(scores[drawn], np.take_along_axis(again, drawn, 1))
    known = found[~np.isnan(found)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(_spearman(scores[None], means[None])[0]), float(low), float(high)


def write_prediction(docs: Path, out: Path, names: Sequence[str], count: int = PICTURES) -> None:
    """Write DOCS/predict.md and DOCS/predict/*.parquet, of the studies in `out` that are done.

    Of under three sets, or of equal results, there is no order to tell, and the page says so.
    """
    if not names:
        return
    first = Kept.open(out / names[0])
    selection, primary = first.settings.selection, first.settings.primary
    dataset = Dataset.open(out / "dataset")
    sets = list(caption_sets(out, names, selection).values())
    kinds = sorted({kind for one in sets for kind in one.kinds})
    scored = scored_kinds(dataset, out / "world" / "truth.parquet", kinds, selection, count)
    rows: list[dict[str, Any]] = [
        {
            "set": one.name,
            "captions": ", ".join(f"{kind} {share:.1%}" for kind, share in one.kinds.items()),
            "result": float(np.mean(list(one.results.values()))),
            "seeds": len(one.results),
            "per_seed": list(one.results.values()),
            **{
                score: sum(share * scored[kind][score] for kind, share in one.kinds.items())
                for score in SCORES
            },
        }
        for one in sets
    ]
    rows.sort(key=lambda row: -float(row["result"]))
    ranks: list[dict[str, Any]] = []
    results = [row["per_seed"] for row in rows]
    if len(rows) > 2 and len({row["result"] for row in rows}) > 1:
        for score, meaning in SCORES.items():
            told = rank_correlation(np.array([row[score] for row in rows]), results)
            ranks.append({"score": score, "meaning": meaning, "sets": len(rows)})
            ranks[-1] |= dict(zip(("spearman", "low", "high"), told, strict=True))
    stored(docs / "predict" / "sets.parquet", pa.Table.from_pylist(rows))
    lines = [
        "# A score of captions that tells beforehand",
        "",
        f"{len(rows)} caption sets of one selection ({selection}), scored on {count} pictures "
        "that have them all, before any training, against what models trained on them reached: "
        f"{primary.metric} on {primary.form} prompts, wording {primary.wording}, mean over seeds. "
        "Equal arms of several studies are one set.",
        "",
    ]
    if ranks:
        stored(docs / "predict" / "correlations.parquet", pa.Table.from_pylist(ranks))
        lines += [
            "Spearman's rank correlation, with a 95% bootstrap interval over sets and seeds:",
            "",
            *markdown(
                ["score", "what", "Spearman", "95%"],
                [[r["score"], r["meaning"], f"{r['spearman']:+.2f}", _interval(r)] for r in ranks],
            ),
            "",
            "The detector is the world's parser, which is nearly exact, and CLIP was trained on "
            "this very world: on photographs both will tell less. Sets are not drawn from a "
            "population of captioners: many are doses of one harm, which a score of facts sees by "
            "construction.",
        ]
    else:
        lines.append("Fewer than three sets are there, or all reached the same: no order to tell.")
    columns = ["clip", "clip_sentences", "words", "clip_tokens", "detector_f1", "truth_f1"]
    lines += [
        "",
        "## The sets",
        "",
        *markdown(
            ["set", "captions", "result, %", "seeds", *columns],
            [
                [row["set"], row["captions"], f"{100 * row['result']:.1f}", str(row["seeds"])]
                + [f"{row[name]:.3g}" for name in columns]
                for row in rows
            ],
        ),
    ]
    write_lines(docs / "predict.md", lines)


def _interval(row: Mapping[str, Any]) -> str:
    return f"[{row['low']:+.2f}, {row['high']:+.2f}]"


def _spearman(a: Floats, b: Floats) -> Floats:
    """Of each row of `(D, N)`; NaN where a row is all alike."""
    from scipy.stats import rankdata

    ranks = [rankdata(x, axis=1) for x in (a, b)]
    x, y = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)))


def _agreement(name: str, texts: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Precision, recall and F1 of what captions state, over all of SEEN_AS together."""
    stated = right = there = 0.0
    for text, scene in zip(texts, scenes, strict=True):
        found = compare(facts(text, scene.grid), scene)
        for kind in SEEN_AS:
            said, agreed, asked, _ = found[kind]
            stated, right, there = stated + said, right + agreed, there + asked
    precision, recall = right / max(stated, 1.0), right / max(there, 1.0)
    both = precision + recall
    return {
        f"{name}_precision": precision,
        f"{name}_recall": recall,
        f"{name}_f1": 2 * precision * recall / both if both else 0.0,
    }


def _prose(text: str) -> str:
    """JSON in prose, as gates and CLIP read it; any other text as it is."""
    if not text.startswith("{"):
        return text
    caption = from_caption(text)
    return text if isinstance(caption, Unread) else prose(caption)


def _embeddings(dataset: Dataset, clip: Clip, keys: set[str]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for shard in dataset.shards():
        rows, pictures = picture_embeddings(dataset, shard, clip)
        found |= {key: pictures[row] for key, row in rows.items() if key in keys}
    return found


def _detected(dataset: Dataset, keys: Sequence[str]) -> dict[str, Scene]:
    """What the world's parser sees in the stored pictures."""
    pictures = read_pictures(dataset, keys, _SIDE)
    parsed = parse(np.stack([pictures[key] for key in keys]), WorldConfig.small())
    return {key: one.scene for key, one in zip(keys, parsed, strict=True)}
