"""The names of an ablation's metrics in words, their units, and their order on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.report import text

Unit = Literal["share", "count", "score"]


@dataclass(frozen=True)
class Metric:
    """A metric for a reader. `apart`: shown apart from alignment, never averaged into it."""

    label: str
    unit: Unit
    meaning: str
    apart: bool = False


METRICS: Mapping[str, Metric] = {
    "all_correct": Metric("all correct", "share", "everything that the prompt says is right"),
    "object": Metric("object", "share", "right colour and shape, in its place if one is said"),
    "object_hit": Metric("object", "share", "right colour and shape, in its place if one is said"),
    "object_hit_well_formed": Metric(
        "object, well formed", "share", "the same, malformed objects left out"
    ),
    "binding": Metric("binding", "share", "right colour on the right shape, wherever it stands"),
    "colour": Metric("colour", "share", "the right colour"),
    "shape": Metric("shape", "share", "the right shape"),
    "size": Metric("size", "share", "the right size"),
    "position": Metric("position", "share", "something stands where it should and nowhere else"),
    "relation": Metric("relation", "share", "pairs that stand to each other as they should"),
    "count": Metric("count", "share", "right number of objects"),
    "background": Metric("background", "share", "right background colour and style"),
    "malformed": Metric("malformed", "share", "objects that are no known shape", apart=True),
    "hallucinated": Metric(
        "hallucinated", "count", "objects a picture that nobody asked for", apart=True
    ),
}


def metric(name: str) -> Metric:
    """What is known of a metric; an unknown one is a plain score."""
    return METRICS.get(name, Metric(text.words(name), "score", ""))


def label(name: str) -> str:
    """The metric's name in words."""
    return metric(name).label


def ordered(names: Iterable[str]) -> list[str]:
    """Known metrics in the page's order, then the others as they come."""
    given = list(dict.fromkeys(names))
    return [name for name in METRICS if name in given] + [n for n in given if n not in METRICS]


def value(name: str, amount: float | None, signed: bool = False) -> str:
    """A value in the metric's unit: shares in percent (differences in points), others plain."""
    if metric(name).unit == "share":
        return text.points(amount) if signed else text.percent(amount)
    shown = text.number(amount)
    return f"+{shown}" if signed and amount is not None and amount > 0 else shown


def interval(name: str, low: float | None, high: float | None, signed: bool = False) -> str:
    """The limits of an interval in the metric's unit; empty where there is none."""
    if metric(name).unit == "share":
        return text.interval(low, high, signed)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{value(name, low, signed)}, {value(name, high, signed)}]"


def limits(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The interval of a row of arms.parquet or contrasts.parquet; None where it has none."""
    ends = [
        end if end is not None and math.isfinite(end) else None for end in (row["low"], row["high"])
    ]
    return ends[0], ends[1]
