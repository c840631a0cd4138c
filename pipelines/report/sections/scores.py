"""Histograms of the scores with every selection's thresholds, and pictures at each threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from curate.store.sample_view import BYTES_PER_PIXEL, BYTES_PER_PIXEL_SQL
from curate.store.scans import sql_name
from pipelines.report import text, truth
from pipelines.report.charts import Bins, Threshold, histogram
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture
from pipelines.report.thresholds import Cut, thresholds

__all__ = ["bin_edges", "compute", "draw", "thresholds"]

BINS = 40
SHOWN = 4  # pictures on either side of a threshold
MAIN = 12  # scores with pictures; the others are folded away
OTHERS = 36
EDGES = 24  # thresholds with pictures, of all scores together
OF_FILES = (BYTES_PER_PIXEL, "jpeg_quality")
"""What rules know of a file beside its scores; see curate.store.sample_view."""
FIRST = ("clip_similarity", "aesthetic", "nsfw", "watermark")

NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class Shown:
    """A sample beside a threshold, or at an end of the range where there is none."""

    score: float
    kept: bool | None
    picture: Picture
    alt_text: str | None


@dataclass(frozen=True)
class Edge:
    """The samples nearest to a threshold, in order of score; `cut` is None at the range's ends."""

    cut: Cut | None
    shown: list[Shown]


@dataclass(frozen=True)
class Score:
    """One score of all stored samples. `median` is approximate (t-digest), counts are exact."""

    name: str
    count: int
    missing: int
    median: float | None
    bins: Bins | None
    beyond: int  # samples outside the drawn range, counted in its end bars
    cuts: list[Cut]
    edges: list[Edge]

    @property
    def thresholds(self) -> list[Threshold]:
        """Where selections cut it; the first cut's selection is the one that is shaded."""
        first = self.cuts[0].selections[0] if self.cuts else ""
        return [replace(cut.threshold, shaded=first in cut.selections) for cut in self.cuts]


@dataclass(frozen=True)
class Scores:
    """The facts of this section. `flags`: share of samples for which a yes-no column is true."""

    main: list[Score]
    others: list[Score]
    flags: list[tuple[str, float, int]]
    unshown: int


def compute(inputs: Inputs) -> Scores | None:
    if inputs.dataset is None or not inputs.dataset.has_table("scores"):
        return None
    types = inputs.columns("scores")
    sample_types = inputs.columns("samples")
    numeric = [name for name, kind in types.items() if kind.startswith(NUMERIC)]
    numeric = [name for name in numeric if name not in sample_types]
    numeric += [name for name in OF_FILES if name == BYTES_PER_PIXEL or name in sample_types]
    # A size that a selection cuts is worth a chart like a score.
    sizes = [n for n in inputs.cuts if sample_types.get(n, "").startswith(NUMERIC)]
    first = [name for name in inputs.cuts if name in numeric or name in sizes]
    first += [name for name in FIRST if name in numeric and name not in first]
    main = (first or numeric)[:MAIN]
    rest = [name for name in numeric if name not in main]
    flags = [name for name, kind in types.items() if kind == "BOOLEAN"]
    budget = EDGES
    drawn = []
    for name in main:
        score = _score(inputs, name, pictures=budget)
        budget -= len(score.edges)
        drawn.append(score)
    others = [_score(inputs, name, pictures=0) for name in rest[:OTHERS]]
    return Scores(
        main=drawn,
        others=[one for one in others if one.count or one.name not in OF_FILES],
        flags=[_flag(inputs, name) for name in flags],
        unshown=max(len(rest) - OTHERS, 0),
    )


def _source(inputs: Inputs, name: str) -> tuple[str, str]:
    """What stands behind FROM, and the column's type; the samples table says what a sample is."""
    samples = inputs.columns("samples")
    if name == BYTES_PER_PIXEL:
        value = f"{BYTES_PER_PIXEL_SQL} AS {BYTES_PER_PIXEL}"
        return f"(SELECT key, {value} FROM samples WHERE status = 'stored')", "FLOAT"
    if name in samples:
        return "(SELECT * FROM samples WHERE status = 'stored')", samples[name]
    return "scores", inputs.columns("scores")[name]


def _score(inputs: Inputs, name: str, pictures: int) -> Score:
    column = sql_name(name)
    source, kind = _source(inputs, name)
    cuts = inputs.cuts.get(name, [])
    whole = inputs.rows(
        f"SELECT count(*) AS n, count({column}) AS valued, min({column}) AS low, "
        f"max({column}) AS high, "
        f"approx_quantile({column}::DOUBLE, [0.002, 0.5, 0.998]) AS inner FROM {source} WHERE "
        f"{column} IS NULL OR isfinite({column}::DOUBLE)"
    )[0]
    missing = whole["n"] - whole["valued"]
    if not whole["valued"]:
        return Score(name, 0, missing, None, None, 0, cuts, [])
    # A few far values must not squeeze all others into one bar; thresholds stay in sight.
    places = [cut.threshold.value for cut in cuts]
    low = max(float(whole["low"]), min([float(whole["inner"][0]), *places]) - 1e-9)
    high = min(float(whole["high"]), max([float(whole["inner"][2]), *places]) + 1e-9)
    edges = bin_edges(low, high, not kind.startswith(("FLOAT", "DOUBLE", "DECIMAL")))
    bins, beyond = _bins(inputs, name, source, edges)
    shown = _edges(inputs, name, cuts)[:pictures] if pictures > 0 else []
    return Score(name, whole["valued"], missing, whole["inner"][1], bins, beyond, cuts, shown)


def bin_edges(low: float, high: float, whole_numbers: bool) -> list[float]:
    """Edges of at most BINS equal bins; whole numbers get bins around them, so none stays empty."""
    start, width, count = low, (high - low or 1.0) / BINS, BINS
    if whole_numbers:
        span = math.ceil(high) - math.floor(low) + 1
        start, width = math.floor(low) - 0.5, float(math.ceil(span / BINS))
        count = math.ceil(span / width)
    return [start + index * width for index in range(count + 1)]


def _bins(inputs: Inputs, name: str, source: str, edges: Sequence[float]) -> tuple[Bins, int]:
    """The counts, and how many samples lie beyond the edges (they count in the end bars)."""
    column = sql_name(name)
    count, width = len(edges) - 1, edges[1] - edges[0]
    split = truth.split(inputs, name)
    label = split.sql if split is not None else "'samples'"
    joined = f"{source} c{split.join if split is not None else ''}"
    rows = inputs.rows(
        f"SELECT {label} AS name, "
        f"least(greatest(floor((c.{column} - $1) / $2)::INTEGER, 0), {count - 1}) AS bin, "
        f"count(*) AS n, count(*) FILTER (c.{column} < $1 OR c.{column} > $3) AS beyond "
        f"FROM {joined} WHERE c.{column} IS NOT NULL "
        f"AND isfinite(c.{column}::DOUBLE) GROUP BY 1, 2",
        [edges[0], width, edges[-1]],
    )
    names = split.names if split is not None else ("samples",)
    counts = {row_name: [0] * count for row_name in names}
    for row in rows:
        counts[row["name"]][row["bin"]] += row["n"]
    drawn = {row_name: tuple(column) for row_name, column in counts.items()}
    return Bins(tuple(edges), drawn), sum(row["beyond"] for row in rows)


def _edges(inputs: Inputs, name: str, cuts: Sequence[Cut]) -> list[Edge]:
    if not inputs.picture_shards:
        return []
    column = sql_name(name)
    base = (
        f"SELECT key, shard, alt_text, {column} AS score FROM {inputs.pictured} "
        f"WHERE isfinite({column}::DOUBLE)"
    )
    edges = []
    places: list[Cut | None] = list(cuts) or [None]
    for cut in places:
        inside = f"({cut.sql})" if cut is not None else "true"
        above_is_kept = cut.threshold.keeps_above if cut is not None else True
        # Next to a threshold: the highest below it. Without one: the lowest of all.
        downwards = "DESC" if cut is not None else "ASC"
        upwards = "ASC" if cut is not None else "DESC"
        outside = f"NOT {inside}" if cut is not None else "true"
        below_where, above_where = (outside, inside) if above_is_kept else (inside, outside)
        below = inputs.rows(
            f"{base} AND {below_where} ORDER BY score {downwards}, key LIMIT {SHOWN}"
        )
        above = inputs.rows(f"{base} AND {above_where} ORDER BY score {upwards}, key LIMIT {SHOWN}")
        sides = [(row, None if cut is None else not above_is_kept) for row in below]
        sides += [(row, None if cut is None else above_is_kept) for row in above]
        found = inputs.pictures(
            {row["key"]: row["shard"] for row, _ in sides},
            {row["key"]: f"{text.words(name)} {row['score']:.4g}" for row, _ in sides},
            side=96,
        )
        shown = {
            row["key"]: Shown(row["score"], kept, found[row["key"]], row["alt_text"])
            for row, kept in sides
            if row["key"] in found
        }
        if shown:
            edges.append(Edge(cut, sorted(shown.values(), key=lambda one: one.score)))
    return edges


def _flag(inputs: Inputs, name: str) -> tuple[str, float, int]:
    column = sql_name(name)
    row = inputs.rows(
        f"SELECT count(*) FILTER ({column}) AS yes, count({column}) AS n FROM scores"
    )[0]
    return name, row["yes"] / max(row["n"], 1), row["yes"]


def draw(facts: Scores, page: Page) -> Section:
    def chart(score: Score):  # type: ignore[no-untyped-def]
        if score.bins is None:
            return ""
        names = list(score.bins.counts)
        css = dict(zip(names, ("good", "bad") if len(names) > 1 else ("plain",), strict=True))
        return histogram(score.bins, css, text.words(score.name), score.thresholds)

    return page.section("scores", "Scores", facts=facts, chart=chart)
