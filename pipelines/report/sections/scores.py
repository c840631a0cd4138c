"""Histograms of the scores with the selection's thresholds, and pictures at their edge."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pipelines.report import text, truth
from pipelines.report.charts import Bins, Threshold, histogram
from pipelines.report.inputs import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture
from pipelines.report.sql import identifier

BINS = 40
SHOWN = 4  # pictures on either side of a threshold
MAIN = 6  # scores with pictures; the others are folded away
OTHERS = 24
FIRST = ("clip_similarity", "aesthetic", "nsfw", "watermark")

_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
_RULE = re.compile(
    r"^\(*\s*\"?(\w+)\"?\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\)*$"
)


@dataclass(frozen=True)
class Edge:
    """A sample beside a threshold, or at an end of the range where there is none."""

    score: float
    kept: bool | None
    picture: Picture
    alt_text: str | None


@dataclass(frozen=True)
class Score:
    """One score of all stored samples."""

    name: str
    count: int
    missing: int
    median: float | None
    bins: Bins | None
    beyond: int  # samples outside the drawn range, counted in its end bars
    thresholds: list[Threshold]
    edges: list[Edge]


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
    numeric = [name for name, kind in types.items() if kind.startswith(_NUMERIC)]
    cuts = thresholds(inputs.rules)
    first = [name for name in numeric if name in cuts]
    first += [name for name in FIRST if name in numeric and name not in first]
    main = (first or numeric)[:MAIN]
    rest = [name for name in numeric if name not in main]
    flags = [name for name, kind in types.items() if kind == "BOOLEAN"]
    return Scores(
        main=[_score(inputs, name, cuts.get(name, []), pictures=True) for name in main],
        others=[_score(inputs, name, cuts.get(name, []), pictures=False) for name in rest[:OTHERS]],
        flags=[_flag(inputs, name) for name in flags],
        unshown=max(len(rest) - OTHERS, 0),
    )


def thresholds(rules: list[str]) -> dict[str, list[Threshold]]:
    """Column -> thresholds, of the rules that compare one column with one number."""
    found: dict[str, list[Threshold]] = {}
    for rule in rules:
        if match := _RULE.match(rule.strip()):
            column, sign, value = match.groups()
            shown = f"{'≥' if sign == '>=' else '≤' if sign == '<=' else sign} {value}"
            cut = Threshold(float(value), sign.startswith(">"), shown)
            found.setdefault(column, []).append(cut)
    return found


def _score(inputs: Inputs, name: str, cuts: list[Threshold], pictures: bool) -> Score:
    column = identifier(name)
    whole = inputs.rows(
        f"SELECT count(*) AS n, count({column}) AS valued, min({column}) AS low, "
        f"max({column}) AS high, median({column}) AS median, "
        f"quantile_cont({column}, [0.002, 0.998]) AS inner FROM scores WHERE "
        f"{column} IS NULL OR isfinite({column}::DOUBLE)"
    )[0]
    missing = whole["n"] - whole["valued"]
    if not whole["valued"]:
        return Score(name, 0, missing, None, None, 0, cuts, [])
    # A few far values must not squeeze all others into one bar; thresholds stay in sight.
    places = [cut.value for cut in cuts]
    low = max(float(whole["low"]), min([float(whole["inner"][0]), *places]) - 1e-9)
    high = min(float(whole["high"]), max([float(whole["inner"][1]), *places]) + 1e-9)
    whole_numbers = not inputs.columns("scores")[name].startswith(("FLOAT", "DOUBLE", "DECIMAL"))
    edges = bin_edges(low, high, whole_numbers)
    bins = _bins(inputs, name, edges)
    beyond = inputs.rows(
        f"SELECT count(*) AS n FROM scores WHERE {column} < ? OR {column} > ?",
        [edges[0], edges[-1]],
    )[0]["n"]
    shown = _edges(inputs, name, cuts) if pictures else []
    return Score(name, whole["valued"], missing, whole["median"], bins, beyond, cuts, shown)


def bin_edges(low: float, high: float, whole_numbers: bool) -> list[float]:
    """Edges of at most BINS equal bins; whole numbers get bins around them, so none stays empty."""
    start, width, count = low, (high - low or 1.0) / BINS, BINS
    if whole_numbers:
        span = math.ceil(high) - math.floor(low) + 1
        start, width = math.floor(low) - 0.5, float(math.ceil(span / BINS))
        count = math.ceil(span / width)
    return [start + index * width for index in range(count + 1)]


def _bins(inputs: Inputs, name: str, edges: list[float]) -> Bins:
    column = identifier(name)
    count, width = len(edges) - 1, edges[1] - edges[0]
    split = truth.split(inputs, name)
    label = split.sql if split is not None else "'samples'"
    source = f"scores c{split.join if split is not None else ''}"
    rows = inputs.rows(
        f"SELECT {label} AS name, "
        f"least(greatest(floor((c.{column} - ?) / ?)::INTEGER, 0), {count - 1}) AS bin, "
        f"count(*) AS n FROM {source} WHERE c.{column} IS NOT NULL "
        f"AND isfinite(c.{column}::DOUBLE) GROUP BY 1, 2",
        [edges[0], width],
    )
    names = split.names if split is not None else ("samples",)
    counts = {row_name: [0] * count for row_name in names}
    for row in rows:
        counts[row["name"]][row["bin"]] += row["n"]
    return Bins(tuple(edges), {row_name: tuple(column) for row_name, column in counts.items()})


def _edges(inputs: Inputs, name: str, cuts: list[Threshold]) -> list[Edge]:
    column = identifier(name)
    base = (
        f"SELECT s.key, s.shard, s.alt_text, c.{column} AS score FROM scores c "
        f"JOIN samples s USING (key) WHERE s.shard IN {inputs.shard_list} "
        f"AND isfinite(c.{column}::DOUBLE)"
    )
    if cuts:
        cut = cuts[0]
        inside = f"c.{column} {cut.text.replace('≥', '>=').replace('≤', '<=')}"
        below_where = f"NOT ({inside})" if cut.keeps_above else inside
        above_where = inside if cut.keeps_above else f"NOT ({inside})"
    else:
        below_where = above_where = "true"
    # Next to a threshold: the highest below it. Without one: the lowest of all.
    downwards = "DESC" if cuts else "ASC"
    upwards = "ASC" if cuts else "DESC"
    below = inputs.rows(f"{base} AND {below_where} ORDER BY score {downwards}, s.key LIMIT {SHOWN}")
    above = inputs.rows(f"{base} AND {above_where} ORDER BY score {upwards}, s.key LIMIT {SHOWN}")
    sides = [(row, not cuts[0].keeps_above if cuts else None) for row in below]
    sides += [(row, cuts[0].keeps_above if cuts else None) for row in above]
    found = inputs.pictures(
        {row["key"]: row["shard"] for row, _ in sides},
        {row["key"]: f"{text.words(name)} {row['score']:.4g}" for row, _ in sides},
        side=96,
    )
    edges = {
        row["key"]: Edge(row["score"], kept, found[row["key"]], row["alt_text"])
        for row, kept in sides
        if row["key"] in found
    }
    return sorted(edges.values(), key=lambda edge: edge.score)


def _flag(inputs: Inputs, name: str) -> tuple[str, float, int]:
    column = identifier(name)
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
