"""The one table of an ablation's metrics, which the terminal, the verdicts and the report read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["share", "count", "cosine", "score"]

# Unit -> least and greatest value, factor when shown, and what follows a value and a difference.
_BOUNDS: dict[Unit, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "count": (0.0, math.inf),
    "cosine": (-1.0, 1.0),
    "score": (-math.inf, math.inf),
}
_SUFFIX: dict[Unit, str] = {"share": " points", "count": " a picture", "cosine": "", "score": ""}
_COLUMN: dict[Unit, str] = {"share": ", %", "count": ", a picture", "cosine": "", "score": ""}


@dataclass(frozen=True)
class Metric:
    """A metric for a reader.

    `digits`: decimals in the unit shown (a share is shown in percent). `less_is_better`: such a
    metric is reported apart from alignment and never averaged into it. `brief`: shown in the
    terminal's table, which has no room for all.
    """

    label: str
    unit: Unit
    digits: int
    meaning: str = ""
    less_is_better: bool = False
    brief: bool = True

    @property
    def factor(self) -> float:
        """From the stored value to the one that is shown."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def column(self) -> str:
        """The label with its unit."""
        return self.label + _COLUMN[self.unit]

    @property
    def suffix(self) -> str:
        """What follows a difference: " points", " a picture"."""
        return _SUFFIX[self.unit]

    def within(self, low: float, high: float, difference: bool = False) -> tuple[float, float]:
        """Limits cut to what the metric, or a difference of two of its values, can be."""
        least, most = _BOUNDS[self.unit]
        if difference:
            least, most = least - most, most - least
        return max(low, least), min(high, most)

    def shown(self, value: float, signed: bool = False) -> str:
        """A value as text in the unit shown, without the unit: 0.731 -> "73.1"."""
        text = f"{self.factor * value:{'+' if signed else ''}.{self.digits}f}"
        return text.replace("-", "") if not float(text) else text

    def limits(self, low: float, high: float) -> str:
        """An interval as text: "[70.4, 75.1]"."""
        return f"[{self.shown(low)}, {self.shown(high)}]"


METRICS: Mapping[str, Metric] = {
    "all_correct": Metric("all correct", "share", 1, "everything that the prompt says is right"),
    "object": Metric("object", "share", 1, "right colour and shape, in its place if one is said"),
    "object_hit": Metric(
        "object", "share", 1, "right colour and shape, in its place if one is said"
    ),
    "object_hit_well_formed": Metric(
        "object, well formed", "share", 1, "the same, malformed objects left out", brief=False
    ),
    "binding": Metric("binding", "share", 1, "right colour on the right shape, wherever it stands"),
    "colour": Metric("colour", "share", 1, "the right colour"),
    "shape": Metric("shape", "share", 1, "the right shape"),
    "size": Metric("size", "share", 1, "the right size", brief=False),
    "position": Metric("position", "share", 1, "something stands where it should and nowhere else"),
    "relation": Metric(
        "relation", "share", 1, "pairs that stand to each other as they should", brief=False
    ),
    "count": Metric("count", "share", 1, "right number of objects"),
    "background": Metric(
        "background", "share", 1, "right background colour and style", brief=False
    ),
    "malformed": Metric(
        "malformed", "share", 1, "objects that are no known shape", less_is_better=True
    ),
    "hallucinated": Metric(
        "hallucinated",
        "count",
        2,
        "objects a picture that nobody asked for",
        less_is_better=True,
        brief=False,
    ),
    "clip_similarity": Metric("CLIP similarity", "cosine", 4, "cosine of picture and prompt"),
}


def metric(name: str) -> Metric:
    """What is known of a metric; an unknown one is a plain score of which more is better."""
    return METRICS.get(name, Metric(name.replace("_", " "), "score", 3))


def ordered(names: Iterable[str]) -> list[str]:
    """Known metrics in the table's order, then the others as they come."""
    given = list(dict.fromkeys(names))
    return [name for name in METRICS if name in given] + [n for n in given if n not in METRICS]
