"""The numbers in a rule that a slider can move, and the histograms behind the sliders.

DuckDB's parser says where in the text each number stands, so a slider rewrites that number and
leaves everything else of the text as it was typed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.selection.preview import Preview
from curate.selection.rule_functions import FUNCTIONS
from curate.selection.rules import Node, conjuncts, parse, unparse
from curate.store.finite import FINITE

if TYPE_CHECKING:
    import duckdb

BARS = 48
MOST = 12
"""Sliders of one rule; the numbers behind them stay as they are typed."""
_LONG = 4.0  # a long tail begins: times the range of the middle half, from the median
_FARTHEST = 1e150  # its square is a double
_PREFIX = len("SELECT ")  # what `parse` puts before the text
_NUMBER = re.compile(rb"[+-]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_SIGNS = {
    "COMPARE_GREATERTHANOREQUALTO": (">=", "<="),
    "COMPARE_GREATERTHAN": (">", "<"),
    "COMPARE_LESSTHANOREQUALTO": ("<=", ">="),
    "COMPARE_LESSTHAN": ("<", ">"),
}
_WHOLE = ("INT", "INTEGER")  # ends of the names of DuckDB's types
_NUMBERS = ("FLOAT", "DOUBLE", "DECIMAL")


@dataclass(frozen=True)
class Slider:
    """One number: `expression` `operator` `value`, in the rule of number `rule`.

    `start`, `end`: where the number stands in the text, in UTF-16 units as JavaScript counts.
    `share`: it is the fraction of a function such as top_fraction(expression, value).
    """

    rule: int
    expression: str
    operator: str
    value: float
    start: int
    end: int
    share: bool = False


def sliders(connection: duckdb.DuckDBPyConnection, where: str) -> list[Slider]:
    """The sliders of a rule, in the order of its text.

    Raises:
        ConfigError: it cannot be parsed.
    """
    raw = where.encode()
    found = []
    for rule, node in enumerate(conjuncts(parse(connection, where))):
        for expression, operator, number in _compared(node):
            place = int(number.get("query_location", 0)) - _PREFIX
            match = _NUMBER.match(raw, place) if 0 <= place < len(raw) else None
            if match is None:
                continue
            value = float(match[0].replace(b" ", b""))
            if not math.isfinite(value):  # as 1e400 is
                continue
            start = len(raw[:place].decode().encode("utf-16-le")) // 2
            end = start + len(match[0])
            sql = unparse(connection, expression)
            found.append(Slider(rule, sql, operator, value, start, end, operator == "top"))
    return sorted(found, key=lambda slider: slider.start)[:MOST]


def _compared(node: Any) -> Iterator[tuple[Node, str, Node]]:
    """(expression, operator, constant) of every comparison with a constant at and below a node."""
    if isinstance(node, list):
        for child in node:
            yield from _compared(child)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind == "COMPARISON" and node["type"] in _SIGNS:
        left, right = node["left"], node["right"]
        if _constant(right) and _computed(left):
            yield left, _SIGNS[node["type"]][0], right
        elif _constant(left) and _computed(right):
            yield right, _SIGNS[node["type"]][1], left
    elif kind == "BETWEEN" and _computed(node["input"]):
        for side, sign in (("lower", ">="), ("upper", "<=")):
            if _constant(node[side]):
                yield node["input"], sign, node[side]
    elif kind == "FUNCTION" and node["function_name"].lower().endswith("top_fraction"):
        # DuckDB 1 calls them children; DuckDB 2 names them.
        parts = node.get("children") or [part["expression"] for part in node.get("arguments", [])]
        if len(parts) == 2 and _computed(parts[0]) and _constant(parts[1]):
            yield parts[0], "top", parts[1]
    for child in node.values():
        yield from _compared(child)


def _constant(node: Node) -> bool:
    return node["class"] == "CONSTANT"


def _computed(node: Node) -> bool:
    """Whether it is more than constants, and SQL that runs as it stands."""
    text = str(node)
    return "'COLUMN_REF'" in text and not any(f"'{name}'" in text.lower() for name in FUNCTIONS)


@dataclass(frozen=True)
class Histogram:
    """Of an expression over all stored samples that have a value.

    `edges` (B + 1,) from the smallest value to the largest, `counts` (B,). `even`: the bars are
    equally wide; else they widen away from the median, because a tail is long. `whole`: the values
    are whole numbers. `missing`: samples without one.
    """

    edges: list[float]
    counts: list[int]
    even: bool
    whole: bool
    missing: int


def histogram(
    connection: duckdb.DuckDBPyConnection, expression: str, source: str
) -> Histogram | None:
    """Two scans of the expression over `source`, a SELECT of its columns; None if it is no number.

    Raises:
        duckdb.Error: it cannot be computed.
    """
    described = connection.execute(f"DESCRIBE SELECT ({expression}) FROM ({source})").fetchall()
    kind = str(described[0][1])
    whole = kind.endswith(_WHOLE)
    if not whole and not kind.startswith(_NUMBERS):
        return None
    values = f"(SELECT {FINITE}({expression})::DOUBLE AS x FROM ({source}))"
    quantiles, known, total = connection.execute(
        f"SELECT quantile_disc(x, [0, 0.25, 0.5, 0.75, 1]), count(x), count(*) FROM {values}"
    ).fetchall()[0]
    ends = [max(-_FARTHEST, min(value, _FARTHEST)) for value in quantiles or [0.0] * 5]
    low, first, median, third, high = ends
    even = max(high - median, median - low) <= _LONG * (third - first) or first == third
    edges = _even(low, high, whole) if even else _widening(low, median, high, third - first, whole)
    counted = connection.execute(
        f"SELECT histogram(x, {edges[1:-1]}::DOUBLE[]) FROM {values} WHERE x IS NOT NULL"
    ).fetchall()[0][0]
    # DuckDB's map has an upper end -> count; what lies beyond the last end has no entry if empty.
    counts = [count for _, count in sorted((counted or {}).items())]
    counts += [0] * (len(edges) - 1 - len(counts))
    return Histogram(edges, counts, even, whole, total - known)


def threshold(shown: Preview, slider: Slider) -> float | None:
    """Where a slider cuts its expression: its value, or what its share came to.

    None where no sample has a value.
    """
    if not slider.share:
        return slider.value
    parts = shown.rules.rules[slider.rule].fractions
    return next((part.threshold for part in parts if part.fraction == slider.value), None)


def _even(low: float, high: float, whole: bool) -> list[float]:
    """Ends of equal bars; of whole numbers each has its own bar, or each bar the same number."""
    if whole:
        low, high = round(low), round(high)
        width = max(1, -(-int(high - low + 1) // BARS))
        count = int(high - low) // width + 1
        return [low - 0.5 + width * place for place in range(count + 1)]
    if high <= low:
        beside = max(0.5, abs(low) / 1e6)
        low, high = low - beside, high + beside
    # Far from zero, some of them may be the same double.
    return sorted({low + (high - low) * place / BARS for place in range(BARS + 1)})


def _widening(low: float, median: float, high: float, middle: float, whole: bool) -> list[float]:
    """Ends of bars that widen from the median on like a hyperbolic sine: evenly within `middle`,
    the range of the middle half, and by a factor a bar far beyond it."""
    left, right = (math.asinh((end - median) / middle) for end in (low, high))
    places = [left + (right - left) * place / BARS for place in range(1, BARS)]
    inner = [median + middle * math.sinh(place) for place in places]
    if not whole:
        return sorted({low, *inner, high})
    return sorted({low - 0.5, *(math.floor(place) + 0.5 for place in inner), high + 0.5})
