"""What a benchmark says: figures, as a table for a person or as one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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


def render(figures: Sequence[Figure], as_json: bool = False) -> str:
    """All figures: aligned columns, or one JSON object a line."""
    if as_json:
        return "\n".join(figure.json_line() for figure in figures)
    rows: list[tuple[str, ...]] = [
        ("figure", "value", "unit", "peer", "peer's", "ratio", "goal", "met")
    ]
    rows += [_cells(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        for column, cell in enumerate(row[1:], start=1):
            text = column in (2, 3, 7)
            cells.append(cell.ljust(widths[column]) if text else cell.rjust(widths[column]))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(figure: Figure) -> tuple[str, ...]:
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
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
