"""Groups of a selection that count alike: a cap on their rows, and a weight for each row.

`--balance EXPR` groups the samples that every other rule let through, copies dropped, by the value
of EXPR. Each group gets the same total weight and the weights have a mean of 1: a row's weight is
total / (groups * rows of its group). `--cap N` first bounds the rows that a group keeps; which ones
is decided by a hash of the key, so a higher cap keeps all that a lower one kept.

A value that is null, NaN or infinite is a group of its own, as in SQL's GROUP BY.

Cost: one scan of the columns that EXPR reads, and two sorts of the keys, which spill to disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.base.errors import ConfigError
from curate.selection.funnel import RuleCount
from curate.selection.rule_functions import Resolved, resolve
from curate.selection.rules import Rule, guarded, split_rules
from curate.store.finite import FINITE
from curate.store.sample_view import SampleTables

_SHOWN_GROUPS = 100


@dataclass(frozen=True)
class Balanced:
    """What balancing did; the rows stand in the table `_balanced` (key, weight)."""

    dropped_alone: int
    """Rows beyond the cap, of all stored samples; 0 without a cap."""
    dropped: int
    record: dict[str, Any]
    """expression, sql, cap, number of groups, and up to 100 groups, the largest first."""

    def step(self, expression: str, cap: int, left: int) -> RuleCount:
        """The cap as a step of the funnel, after which `left` - `dropped` rows are left."""
        text = f"at most {cap:,} a group of {expression}"
        return RuleCount(text, self.dropped_alone, 0, self.dropped, 0, left - self.dropped)


def resolve_balance(tables: SampleTables, expression: str) -> Resolved:
    """The expression ready to run, checked like a rule.

    Raises:
        ConfigError: no expression over the columns of one sample.
    """
    import duckdb

    parts = split_rules(tables.connection, expression, tables.columns)
    columns = tuple(dict.fromkeys(name for part in parts for name in part.columns))
    if not columns and len(parts) == 1 and "in_selection" not in expression.lower():
        raise ConfigError(f"--balance {expression!r} reads no column, so it makes no groups.")
    resolved = resolve(Rule(expression, columns), tables)
    try:
        tables.connection.execute(
            f"SELECT ({resolved.sql}) FROM ({tables.source(resolved.columns)}) LIMIT 0"
        )
    except duckdb.Error as error:
        raise _wrong(expression, error) from error
    return resolved


def balance(tables: SampleTables, expression: Resolved, cap: int | None, chosen: str) -> Balanced:
    """Make the table `_balanced` (key, weight) on the connection.

    Args:
        chosen: SQL for the column `key` of the samples that take part.

    Raises:
        ConfigError: the expression cannot be computed.
    """
    import duckdb

    connection = tables.connection
    value = f"{FINITE}({guarded(connection, expression.sql)})"
    try:
        connection.execute(
            f"CREATE TEMP TABLE _groups AS SELECT key, {value} AS value "
            f"FROM ({tables.source(expression.columns)})"
        )
    except duckdb.Error as error:
        raise _wrong(expression.text, error) from error
    most = 2**62 if cap is None else cap
    connection.execute(
        "CREATE TEMP TABLE _members AS SELECT key, value, place, "
        "count(*) OVER (PARTITION BY value) AS size FROM (SELECT key, value, row_number() OVER "
        f"(PARTITION BY value ORDER BY md5('cap ' || key), key) AS place FROM ({chosen}) "
        "JOIN _groups USING (key))"
    )
    total, groups, dropped = connection.execute(
        "SELECT count(*) FILTER (place <= $1), count(*) FILTER (place = 1), "
        "count(*) FILTER (place > $1) FROM _members", [most],
    ).fetchall()[0]  # fmt: skip
    connection.execute(
        "CREATE TEMP TABLE _balanced AS SELECT key, "
        f"{total}::DOUBLE / ({groups} * least(size, {most})) AS weight "
        f"FROM _members WHERE place <= {most}"
    )
    alone = connection.execute(
        "SELECT coalesce(sum(n - $1) FILTER (n > $1), 0) FROM "
        "(SELECT count(*) AS n FROM _groups GROUP BY value)", [most],
    ).fetchall()[0][0]  # fmt: skip
    largest = connection.execute(
        "SELECT value::VARCHAR, size, least(size, $1) FROM _members WHERE place = 1 "
        "ORDER BY size DESC, 1 LIMIT $2", [most, _SHOWN_GROUPS],
    ).fetchall()  # fmt: skip
    shown = [
        {"group": name, "passed": size, "rows": rows, "weight": total / (groups * rows)}
        for name, size, rows in largest
    ]
    record = {
        "expression": expression.text,
        "sql": expression.sql,
        "cap": cap,
        "groups": groups,
        "largest": shown,
    }
    return Balanced(int(alone), int(dropped), record)


def _wrong(expression: str, error: Exception) -> ConfigError:
    return ConfigError(f"--balance {expression!r} does not work: {str(error).splitlines()[0]}")
