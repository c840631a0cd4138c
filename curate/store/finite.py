"""Numbers that no comparison may meet: NaN, which SQL calls larger than any number, and infinities.

What comes in is made null where it comes in. Here the datasets of earlier versions and the computed
values of rules are held to the same: a score that is not finite is unknown, and passes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.store.scans import sql_name

if TYPE_CHECKING:
    import duckdb

FINITE = "_finite"
"""Name of the SQL function: null for a NaN or an infinity, any other value as it is."""
_FLOATS = ("FLOAT", "DOUBLE")


def add_finite(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the function known to a connection."""
    # The type is known when the query is planned, so only floats pay for the look.
    connection.execute(
        f"CREATE OR REPLACE MACRO {FINITE}(x) AS CASE WHEN typeof(x) IN {_FLOATS} "
        "AND NOT isfinite(TRY_CAST(x AS DOUBLE)) THEN NULL ELSE x END"
    )


def finite(column: str, kind: str) -> str:
    """SQL of a column that holds finite numbers only.

    Args:
        column: as it stands in SQL.
        kind: its type in DuckDB's words; a list with one such number in it is null as a whole.
    """
    if kind in _FLOATS:
        return f"CASE WHEN isfinite({column}) THEN {column} END"
    if kind in [f"{name}[]" for name in _FLOATS]:
        return f"CASE WHEN isfinite(list_sum({column}::DOUBLE[])) THEN {column} END"
    return column


def finite_columns(connection: duckdb.DuckDBPyConnection, source: str) -> str:
    """The SELECT list of all columns of `source` (what stands behind FROM), made finite."""
    described: list[tuple[Any, ...]] = connection.execute(
        f"DESCRIBE SELECT * FROM {source}"
    ).fetchall()
    quoted = [(sql_name(str(row[0])), str(row[1])) for row in described]
    return ", ".join(f"{finite(name, kind)} AS {name}" for name, kind in quoted)
