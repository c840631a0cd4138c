"""Functions in a rule that look at the whole dataset, worked out before the rule runs.

    top_fraction(x, f)            among the best f (0 < f <= 1) of all stored samples by x: those
                                  whose value is at least the ceil(f N)-th largest
    datacomp_top_fraction(x, f)   the same by the letter of DataComp's published filter, which
                                  counts places from zero and so keeps one sample more
    in_selection('name')          the sample is in that stored selection; with AND, OR and NOT this
                                  makes unions, intersections and differences of selections

Ties at the edge of a fraction pass together. N counts every stored sample, also one without a
value, which itself never passes (it counts as unscored).

Source of the second: mlfoundations/datacomp, baselines/apply_filter.py, `get_threshold`:
n = int(len(pool) * fraction), threshold = n-th value from the top with the first numbered 0, and
`value >= threshold` is kept.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.base.errors import ConfigError
from curate.selection.rules import Node, Rule, parse, unparse
from curate.store.finite import FINITE
from curate.store.sample_view import SampleTables

if TYPE_CHECKING:
    import duckdb

_BINS = 1 << 14
_FEW = 200_000  # values that are sorted outright
FUNCTIONS = ("top_fraction", "datacomp_top_fraction", "in_selection")


@dataclass(frozen=True)
class Fraction:
    """A fraction worked out: `expression >= threshold` is what runs."""

    expression: str
    fraction: float
    threshold: float | None
    """None where no sample has a value."""


@dataclass(frozen=True)
class Resolved:
    """A rule ready to run: plain SQL over the columns of a sample, the selections it names."""

    text: str
    sql: str
    columns: tuple[str, ...]
    fractions: tuple[Fraction, ...] = ()
    selections: tuple[str, ...] = ()


def resolve(rule: Rule, tables: SampleTables) -> Resolved:
    """Replace the functions above by what they amount to on this dataset.

    Cost: two scans of the column for each fraction, and memory for a few hundred thousand values.

    Raises:
        ConfigError: wrong arguments, or a selection that does not exist.
    """
    if not any(name in rule.text.lower() for name in FUNCTIONS):
        return Resolved(rule.text, rule.text, rule.columns)
    worker = _Resolver(tables, rule)
    tree = worker.visit(parse(tables.connection, rule.text))
    return Resolved(
        rule.text,
        unparse(tables.connection, tree),
        (*rule.columns, *worker.columns),
        tuple(worker.fractions),
        tuple(worker.selections),
    )


class _Resolver:
    def __init__(self, tables: SampleTables, rule: Rule) -> None:
        self.tables, self.rule = tables, rule
        self.fractions: list[Fraction] = []
        self.selections: list[str] = []
        self.columns: list[str] = []

    def visit(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.visit(child) for child in node]
        if not isinstance(node, dict):
            return node
        node = {name: self.visit(child) for name, child in node.items()}
        if node.get("class") == "FUNCTION":
            name = node["function_name"].lower()
            if name == "in_selection":
                return self._in_selection(node)
            if name in FUNCTIONS:
                return self._fraction(node, counted_from_zero=name.startswith("datacomp"))
        return node

    def _in_selection(self, node: Node) -> Node:
        names = [unparse(self.tables.connection, part) for part in _arguments(node)]
        names = [re.sub(r"^'(.*)'$", r"\1", name) for name in names if name.startswith("'")]
        if len(names) != 1:
            raise ConfigError(
                f"{self.rule.text!r}: in_selection takes a name in quotes, as in "
                f"in_selection('good')."
            )
        column = f"in selection {names[0]}"
        self.tables.add_selection(column, names[0])
        self.selections.append(names[0])
        self.columns.append(column)
        return self._parsed(f'"{column}"')

    def _fraction(self, node: Node, counted_from_zero: bool) -> Node:
        parts = [unparse(self.tables.connection, part) for part in _arguments(node)]
        number = _number(parts[1]) if len(parts) == 2 else 0
        if not 0 < number <= 1:
            raise ConfigError(
                f"{self.rule.text!r}: a fraction takes a column and a number above 0 and at most "
                f"1, as in top_fraction(clip_similarity, 0.3)."
            )
        expression = parts[0]
        source = self.tables.source(self.rule.columns)
        total = _count(self.tables.connection, f"SELECT count(*) FROM ({source})")
        place = int(total * number) + 1 if counted_from_zero else math.ceil(total * number)
        value, kind = nth_largest(self.tables.connection, expression, source, max(place, 1))
        self.fractions.append(Fraction(expression, number, value))
        if value is None:
            return self._parsed(f"CASE WHEN {FINITE}({expression}) IS NOT NULL THEN true END")
        return self._parsed(f"({expression}) >= CAST('{value!r}' AS {kind})")

    def _parsed(self, sql: str) -> Node:
        return parse(self.tables.connection, sql)


def nth_largest(
    connection: duckdb.DuckDBPyConnection, expression: str, source: str, place: int
) -> tuple[float | None, str]:
    """The `place`-th largest (from 1) finite value of an expression, exactly, and its SQL type.

    The smallest value where there are fewer; None where there is none. A histogram finds the bin
    that holds the place, and only that bin's values are sorted, so memory stays bounded.
    """
    import duckdb

    values = f"(SELECT ({expression}) AS x FROM ({source}))"
    try:
        low, high, count, kind = connection.execute(
            f"SELECT min(x), max(x), count(x), any_value(typeof(x)) FROM {values} "
            "WHERE isfinite(x::DOUBLE)"
        ).fetchall()[0]
    except duckdb.Error as error:
        raise ConfigError(f"{expression!r} is no number, so no fraction of it is.") from error
    if not count:
        return None, "DOUBLE"
    low, high, place = float(low), float(high), min(place, count)
    while count > _FEW and high > low:
        bins = connection.execute(
            "SELECT least(floor((x::DOUBLE - $1) / $2), $3)::BIGINT AS bin, count(*), min(x), "
            f"max(x) FROM {values} WHERE x BETWEEN $1 AND $4 GROUP BY 1 ORDER BY 1 DESC",
            [low, (high - low) / _BINS, _BINS - 1, high],
        ).fetchall()
        for _, inside, least, most in bins:
            if place <= inside:
                low, high, count = float(least), float(most), inside
                break
            place -= inside
    if high == low:
        return low, str(kind)
    rest = connection.execute(
        f"SELECT x::DOUBLE AS x FROM {values} WHERE x BETWEEN ? AND ?", [low, high]
    ).fetchnumpy()["x"]
    return float(np.sort(np.asarray(rest))[-place]), str(kind)


def _arguments(node: Node) -> list[Node]:
    # DuckDB 1 calls them children; DuckDB 2 names them.
    found: list[Node] = node.get("children") or [
        argument["expression"] for argument in node.get("arguments", [])
    ]
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])
