"""What a benchmark says: figures, as a table for a person or as one JSON object a line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One measured number.

    `value` is ours. Speed counts as a ratio alone: `ratio` is ours divided by the peer's, or by
    the measured limit's, taken in the same run; `goal` bounds the ratio where there is one, else
    the value.
    """

    name: str
    """Path-like, such as "download/512/cpu_per_image"."""
    value: float
    unit: str
    peer: str | None = None
    """What it is compared with, such as "img2dataset 1.47.0"."""
    peer_value: float | None = None
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    """Whether the goal is a ceiling or a floor."""

    @property
    def ratio(self) -> float | None:
        """Ours / the peer's."""
        return self.value / self.peer_value if self.peer_value else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged <= self.goal if self.better == "lower" else judged >= self.goal

    def json_line(self) -> str:
        """One JSON object: name, value, unit, peer, peer_value, ratio, goal, met."""
        record = asdict(self) | {"ratio": self.ratio, "met": self.met}
        del record["better"]
        return json.dumps(record)


class Figures(list[Figure]):
    """Figures in the order in which they are printed; their names begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        beside: tuple[str, float] | None = None,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Append PREFIX/NAME.

        Args:
            beside: the peer or the limit, and its value.
            at_most, at_least: the goal, of the ratio or (without a peer) of the value.
        """
        peer, theirs = beside or (None, None)
        goal = at_most if at_least is None else at_least
        better: Literal["lower", "higher"] = "lower" if at_least is None else "higher"
        name = f"{self.prefix}/{name}"
        self.append(Figure(name, float(value), unit, peer, theirs, goal, better))


def work_folder(out: Path | None) -> Path:
    """Where a benchmark works: `out`, or a new temporary folder."""
    folder = (out or Path(tempfile.mkdtemp(prefix="caplab-bench-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def render(figures: Sequence[Figure], as_json: bool = False) -> str:
    """All figures: aligned columns, or one JSON object a line."""
    if as_json:
        return "\n".join(figure.json_line() for figure in figures)
    rows = [("figure", "value", "unit", "peer", "peer's", "ratio", "goal", "met")]
    rows += [_cells(figure) for figure in figures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = (0, 2, 3, 7)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cells(figure: Figure) -> tuple[str, str, str, str, str, str, str, str]:
    bound = "<=" if figure.better == "lower" else ">="
    return (
        figure.name,
        _number(figure.value),
        figure.unit,
        figure.peer or "",
        _number(figure.peer_value),
        _number(figure.ratio),
        "" if figure.goal is None else f"{bound} {_number(figure.goal)}",
        {None: "", True: "yes", False: "NO"}[figure.met],
    )


def _number(value: float | None) -> str:
    """Four significant digits; whole numbers in full, with thousands marked."""
    if value is None:
        return ""
    whole = float(value).is_integer() or abs(value) >= 10_000
    return f"{value:,.0f}" if whole else f"{value:.4g}"
