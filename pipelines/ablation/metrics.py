"""The one table of an ablation's metrics, which the terminal, the verdicts and the report read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipelines.statistics.interval import Bounds

Unit = Literal["share", "probability", "count", "cosine", "distance", "score"]

# Unit -> least and greatest value, and what follows a difference and a column's label.
_BOUNDS: dict[Unit, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "probability": (0.0, 1.0),
    "count": (0.0, math.inf),
    "cosine": (-1.0, 1.0),
    "distance": (0.0, math.inf),
    "score": (-math.inf, math.inf),
}
_SUFFIX: Mapping[str, str] = {"share": " points", "count": " a picture"}
_COLUMN: Mapping[str, str] = {"share": ", %", "count": ", a picture"}


@dataclass(frozen=True)
class Metric:
    """A metric for a reader.

    `digits`: most decimals in the unit shown (a share is shown in percent); an interval may allow
    fewer. `less_is_better`: such a metric is reported apart from alignment and never averaged into
    it. `brief`: shown in the terminal's table, which has no room for all.
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
        return self.label + _COLUMN.get(self.unit, "")

    @property
    def suffix(self) -> str:
        """What follows a difference: " points", " a picture"."""
        return _SUFFIX.get(self.unit, "")

    def bounds(self, difference: bool = False) -> Bounds:
        """How the interval of a mean, or of a difference of two, is kept where it can be."""
        if self.unit not in ("share", "probability"):
            return "none"
        return "difference of shares" if difference else "share"

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest value that it can have; a cosine is allowed what rounding adds."""
        least, most = _BOUNDS[self.unit]
        return (least - 1e-6, most + 1e-6) if self.unit != "score" else (least, most)

    def within(self, low: float, high: float, difference: bool = False) -> tuple[float, float]:
        """Limits cut to what the metric, or a difference of two of its values, can be."""
        least, most = _BOUNDS[self.unit]
        if difference:
            least, most = least - most, most - least
        return max(low, least), min(high, most)

    @property
    def widest(self) -> float:
        """The largest difference of two values."""
        least, most = _BOUNDS[self.unit]
        return most - least

    def digits_for(self, low: float, high: float) -> int:
        """Decimals that an interval allows: its half-width has two digits, one from 3.55 on.

        The rule of the Particle Data Group's Review (Introduction, 5.3); never more than `digits`.
        """
        half = self.factor * abs(high - low) / 2
        if not (math.isfinite(half) and half > 0):
            return self.digits
        power = math.floor(math.log10(half))
        wanted = (1 if half / 10**power < 3.55 else 0) - power
        return max(0, min(self.digits, wanted))

    def shown(self, value: float, signed: bool = False, digits: int | None = None) -> str:
        """A value as text in the unit shown, without the unit: 0.731 -> "73.1"."""
        digits = self.digits if digits is None else digits
        text = f"{self.factor * value:{'+' if signed else ''}.{digits}f}"
        return text.replace("-", "") if not float(text) else text

    def limits(self, low: float, high: float, signed: bool = False) -> str:
        """An interval as text, with the digits that it allows: "[70.4, 75.1]"."""
        digits = self.digits_for(low, high)
        return f"[{self.shown(low, signed, digits)}, {self.shown(high, signed, digits)}]"


METRICS: Mapping[str, Metric] = {
    "all_correct": Metric("all correct", "share", 1, "everything that the prompt says is right"),
    "object": Metric("object", "share", 1, "right colour and shape, in its place if one is said"),
    "object_hit": Metric(
        "object", "share", 1, "right colour and shape, in its place if one is said"
    ),
    "object_forced": Metric(
        "object, forced choice", "share", 1, "the nearest colour and shape is the one asked for"
    ),
    "object_hit_held_out": Metric(
        "object, held-out pairs", "share", 1, "colour-shape pairs that no training picture shows"
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
    "clip_similarity": Metric("CLIP similarity", "cosine", 4, "cosine of picture and intent"),
    "clip_similarity_sentences": Metric(
        "CLIP similarity, sentences",
        "cosine",
        4,
        "mean cosine of picture and each sentence",
        brief=False,
    ),
    "clip_text_cut": Metric(
        "text cut by CLIP",
        "share",
        1,
        "of the text that CLIP's window leaves out",
        less_is_better=True,
        brief=False,
    ),
    "vqa_score": Metric("VQAScore", "probability", 3, "that the picture shows the text: yes"),
    "soft_tifa": Metric("Soft-TIFA, atom", "probability", 3, "of yes, mean over the questions"),
    "soft_tifa_all": Metric(
        "Soft-TIFA, whole", "probability", 3, "of yes, geometric mean over the questions"
    ),
    "geneval": Metric("GenEval", "share", 1, "everything that the tag says is detected"),
    "round_trip_similarity": Metric(
        "round trip", "cosine", 4, "cosine of a picture and the one drawn from its caption"
    ),
    "fid": Metric("FID", "distance", 2, "to real pictures", less_is_better=True),
    "kid": Metric("KID", "score", 4, "to real pictures", less_is_better=True),
    "cmmd": Metric("CMMD", "score", 3, "to real pictures", less_is_better=True),
    "mind": Metric("MIND", "score", 3, "to real pictures", less_is_better=True),
    "fd_dinov2": Metric("FD-DINOv2", "distance", 1, "to real pictures", less_is_better=True),
    "precision": Metric("precision", "share", 1, "pictures among the real ones"),
    "recall": Metric("recall", "share", 1, "real pictures among the drawn ones"),
    "density": Metric("density", "score", 3, "how deep among the real pictures", brief=False),
    "coverage": Metric("coverage", "share", 1, "real pictures with a drawn one near", brief=False),
    "vendi": Metric("Vendi", "score", 2, "effective number of different pictures"),
}


def metric(name: str) -> Metric:
    """What is known of a metric; an unknown one is a plain score of which more is better."""
    return METRICS.get(name, Metric(name.replace("_", " "), "score", 3))


def ordered(names: Iterable[str]) -> list[str]:
    """Known metrics in the table's order, then the others as they come."""
    given = list(dict.fromkeys(names))
    return [name for name in METRICS if name in given] + [n for n in given if n not in METRICS]
