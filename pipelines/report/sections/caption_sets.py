"""Caption sets measured, and two of them side by side: with the pictures where they differ most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.store.scans import sql_text
from pipelines.report import text
from pipelines.report.charts import Bins, histogram
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture
from pipelines.world.caption_truth import world_truth
from pipelines.world.weights import family
from recaption.judging.caption_sets import (
    SIMILARITIES,
    CaptionSample,
    CaptionSet,
    find_set,
    find_sets,
    sample_captions,
)
from recaption.judging.compare import Comparison, compare_captions
from recaption.judging.measure import MeasuredSets, measure_captions
from recaption.judging.settings import JudgeSettings
from recaption.judging.tables import difference_cells, estimate, few_note, measure_groups

BINS = 30
SHOWN = 4  # pictures of each kind: a fits better, b fits better, at random
# The report loads no model, and should be quick: fewer pictures than the command's own.
SETTINGS = JudgeSettings(sample=2000, fingerprint_pictures=300, draws=500)
WITHOUT_CLIP = (
    "the report loads no CLIP model, so it knows only alt texts, whose embeddings are stored; "
    "caplab captions measures every set"
)


@dataclass(frozen=True)
class Told:
    """What one set says of a picture; `similarity` is None where nobody computed it."""

    text: str
    similarity: float | None


@dataclass(frozen=True)
class Shown:
    """A picture with the captions of both sets."""

    picture: Picture
    alt_text: str | None
    a: Told
    b: Told


@dataclass(frozen=True)
class Pair:
    """Two sets side by side.

    `measure` is the similarity by which pictures were chosen; empty where there is none. `apart`
    holds title -> pictures.
    """

    comparison: Comparison
    measure: str
    apart: dict[str, list[Shown]]


@dataclass(frozen=True)
class CaptionSets:
    """The facts of this section.

    `similarities`: name of a set -> histogram of the similarity that most sets have, over all its
    captions and the same bins; `similarity` is that column, empty where there is none.
    """

    measures: MeasuredSets
    pair: Pair | None
    similarity: str
    similarities: dict[str, Bins]


def compute(inputs: Inputs) -> CaptionSets | None:
    if inputs.dataset is None or not inputs.dataset.has_table("captions"):
        return None
    truth = (
        world_truth(inputs.dataset, inputs.truth_path) if inputs.truth_path is not None else None
    )
    measures = measure_captions(
        inputs.dataset, SETTINGS, truth=truth, clip_reason=WITHOUT_CLIP, families=[family()]
    )
    similarity, bins = _histograms(measures)
    chosen = _chosen(inputs, measures)
    if chosen is None:
        return CaptionSets(measures, None, similarity, bins)
    a, b = chosen
    comparison = compare_captions(inputs.dataset, a, b, SETTINGS, truth=truth, families=[family()])
    sample = _picturable(inputs, a, b)
    measure, most_a, most_b = _apart(sample, a, b)
    apart = {
        f"Better fit: {a.name}": most_a,
        f"Better fit: {b.name}": most_b,
        "At random": range(min(SHOWN, len(sample.keys))),
    }
    rows = sorted({row for some in apart.values() for row in some})
    shown = _shown(inputs, sample, a, b, rows, measure)
    pictures = {
        title: [shown[row] for row in some if row in shown] for title, some in apart.items()
    }
    return CaptionSets(measures, Pair(comparison, measure, pictures), similarity, bins)


def _histograms(measures: MeasuredSets) -> tuple[str, dict[str, Bins]]:
    for column in reversed(SIMILARITIES):
        found = {
            one.set.name: one.counts.distributions[column]
            for one in measures.sets
            if one.counts.distributions[column].total
        }
        if found:
            low = min(float(d.values[0]) for d in found.values())
            high = max(float(d.values[-1]) for d in found.values())
            edges = np.linspace(low, max(high, low + 0.01), BINS + 1)
            return column, {
                name: Bins(
                    tuple(edges.tolist()),
                    {name: tuple(map(int, np.histogram(d.values, edges, weights=d.counts)[0]))},
                )
                for name, d in found.items()
            }
    return "", {}


def _chosen(inputs: Inputs, measures: MeasuredSets) -> tuple[CaptionSet, CaptionSet] | None:
    """The sets to show side by side: asked for, or the first of these that share pictures.

    Two captioners' captions of one kind; two kinds of one captioner; a captioner and the alt texts,
    or what people wrote; these and the alt texts.
    """
    assert inputs.dataset is not None
    if inputs.compared is not None:
        sets = find_sets(inputs.dataset)
        return find_set(sets, inputs.compared[0]), find_set(sets, inputs.compared[1])
    spoken = [one for one in measures.sets if one.counts.accepted]
    written = [one.set for one in sorted(spoken, key=lambda one: -one.counts.accepted)]
    human = [one for one in written if one.is_human]
    people = [one for one in written if one.is_of_people]
    machine = [one for one in written if one not in (*human, *people)]
    pairs = [(a, b) for a in machine for b in machine if a != b]
    same_kind = [(a, b) for a, b in pairs if a.kind == b.kind]
    same_source = [(a, b) for a, b in pairs if a.source == b.source and a.kind < b.kind]
    others = [(a, b) for a in (*machine, *people) for b in (*human, *people) if a != b]
    for a, b in (*same_kind, *same_source, *others):
        if sample_captions(inputs.dataset, [a, b], 2).shared:
            return a, b
    return None


def _picturable(inputs: Inputs, a: CaptionSet, b: CaptionSet) -> CaptionSample:
    """Captions of both sets, of pictures that can be shown."""
    assert inputs.dataset is not None
    rows = inputs.rows(
        f"SELECT key FROM samples WHERE status = 'stored' AND shard IN {inputs.shard_list}"
    )
    among = pa.array([row["key"] for row in rows], pa.string())
    return sample_captions(inputs.dataset, [a, b], SETTINGS.sample, inputs.seed, among)


def _apart(
    sample: CaptionSample, a: CaptionSet, b: CaptionSet
) -> tuple[str, Sequence[int], Sequence[int]]:
    """The similarity that both sets have, and the rows where a, or b, is ahead by most."""
    for measure in reversed(SIMILARITIES):
        ours, theirs = (_values(sample, one, measure) for one in (a, b))
        gap = ours - theirs
        known = np.flatnonzero(~np.isnan(gap))
        if len(known):
            order = known[np.argsort(-gap[known], kind="stable")]
            most_a = [int(row) for row in order[:SHOWN] if gap[row] > 0]
            most_b = [int(row) for row in order[::-1][:SHOWN] if gap[row] < 0]
            return measure, most_a, most_b
    return "", [], []


def _values(sample: CaptionSample, one: CaptionSet, measure: str) -> np.ndarray:  # type: ignore[type-arg]
    column = sample.tables[one].column(measure).to_pylist()
    return np.array([np.nan if value is None else value for value in column], float)


def _shown(
    inputs: Inputs,
    sample: CaptionSample,
    a: CaptionSet,
    b: CaptionSet,
    rows: Sequence[int],
    measure: str,
) -> dict[int, Shown]:
    """Row of the sample -> picture with both captions, where the picture can be read."""
    keys = [sample.keys[row] for row in rows]
    listed = ", ".join(map(sql_text, keys)) or "''"
    found = {
        row["key"]: row
        for row in inputs.rows(f"SELECT key, shard, alt_text FROM samples WHERE key IN ({listed})")
    }
    told: dict[CaptionSet, list[Told]] = {}
    for one in (a, b):
        values = _values(sample, one, measure) if measure else np.full(len(sample.keys), np.nan)
        told[one] = [
            Told(text, None if math.isnan(value) else float(value))
            for text, value in zip(sample.texts(one), values, strict=True)
        ]
    texts = {key: told[a][row].text for key, row in zip(keys, rows, strict=True)}
    pictures = inputs.pictures(
        {key: found[key]["shard"] for key in keys}, {k: t[:300] for k, t in texts.items()}, side=160
    )
    return {
        row: Shown(pictures[key], found[key]["alt_text"], told[a][row], told[b][row])
        for key, row in zip(keys, rows, strict=True)
        if key in pictures
    }


def draw(facts: CaptionSets, page: Page) -> Section:
    pair = facts.pair
    return page.section(
        "caption_sets",
        "Caption sets compared" if len(facts.measures.sets) > 1 else "Captions measured",
        facts=facts,
        names=[one.set.name for one in facts.measures.sets],
        groups=measure_groups(facts.measures),
        estimate=estimate,
        charts=[
            (name, histogram(bins, {name: page.palette.css(name)}, text.words(facts.similarity)))
            for name, bins in facts.similarities.items()
        ],
        few_note=few_note,
        differences=[difference_cells(row) for row in pair.comparison.differences] if pair else [],
    )
