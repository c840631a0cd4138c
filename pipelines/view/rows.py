"""Orders of the samples, and windows on them.

An order is a table of row numbers of the copied samples (pipelines.view.tables), in DuckDB's
scratch file: making it costs one sort, which spills, and a window of it costs milliseconds
wherever it begins. The orders asked for last are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import duckdb
from starlette.routing import Route

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import nearest
from curate.store.scans import parquet_scan, sql_name
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.order import Order
from pipelines.view.tables import Tables

KEPT_ORDERS = 16
_TRIES = 5
LARGEST_WINDOW = 1000
"""Rows."""
SHOWN_MOST = 40
"""Columns of a window."""
_HEAD = ("key", "shard", "width", "height", "alt_text")


def routes(opened: Opened) -> list[Route]:
    """GET /api/order and /api/window."""
    orders = opened.orders

    def order(asked: Asked) -> dict[str, Any]:
        wanted = Order(
            sort=asked.text("sort"),
            down=asked.flag("down"),
            selection=asked.text("selection"),
            where=asked.text("where"),
            side=asked.one_of("side", "all", "kept", "dropped"),
            keep_duplicates=asked.flag("keep_duplicates"),
            random=asked.whole("random", 0) if asked.text("random") else None,
            captions=asked.text("captions"),
        )
        tables = opened.tables
        total = make_order(opened, tables, wanted)
        orders[wanted.name] = wanted
        while len(orders) > 8 * KEPT_ORDERS:
            orders.popitem(last=False)
        return {"order": wanted.name, "total": total, "version": tables.mark}

    def window(asked: Asked) -> dict[str, Any]:
        start = asked.whole("start", 0)
        count = asked.whole("count", 200, 1, LARGEST_WINDOW)
        name, show = asked.text("order"), asked.names("show")
        rows, total = window_of(opened, name, start, count, show)
        return {"rows": rows, "total": total}

    return [get("/api/order", order), get("/api/window", window)]


def window_of(
    opened: Opened, name: str, start: int, count: int, show: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], int]:
    """The rows of a window of an order, by its name, and how many the order has.

    Raises:
        ConfigError: no such column.
        DatasetError: the order is not known, or too many are asked for at once.
    """
    wanted = opened.orders.get(name)
    if wanted is None:
        raise DatasetError("That order is not known any more; load the page again.")
    tables = opened.tables
    source = (
        f"orders.{sql_name(wanted.name)} o JOIN copied.sample s ON s.rowid = o.id "
        f"WHERE o.rowid >= {start} AND o.rowid < {start + count} ORDER BY o.rowid"
    )
    for _ in range(_TRIES):
        total = make_order(opened, tables, wanted)
        with suppress(duckdb.CatalogException):  # newer ones have taken its place meanwhile
            return rows(tables, source, show), total
    raise DatasetError("Too many orders are asked for at once; look again in a moment.")


def make_order(opened: Opened, tables: Tables, order: Order) -> int:
    """Have the table orders.NAME (`id`: row numbers of copied.sample), and count its rows.

    Raises:
        ConfigError: no such column or selection, or a rule that does not work.
    """
    with tables.lock:
        if order.name in tables.orders:
            tables.orders.move_to_end(order.name)
            return tables.orders[order.name]
    with tables.making:  # one sort at a time has all the memory that DuckDB may take
        return tables.orders.get(order.name) or _make_order(opened, tables, order)


def _make_order(opened: Opened, tables: Tables, order: Order) -> int:
    by = _by(tables, order)
    where = " AND ".join(["true", *_limits(opened, tables, order)])
    cursor = tables.connection.cursor()
    name = sql_name(order.name)
    # Ties keep the order of the input, so that the same question has the same answer.
    cursor.execute(
        f"CREATE OR REPLACE TABLE orders.{name} AS SELECT rowid AS id FROM copied.sample s "
        f"WHERE {where} ORDER BY {by}"
    )
    total = int(cursor.execute(f"SELECT count(*) FROM orders.{name}").fetchall()[0][0])
    with tables.lock:
        tables.orders[order.name] = total
        while len(tables.orders) > KEPT_ORDERS:
            old, _ = tables.orders.popitem(last=False)
            cursor.execute(f"DROP TABLE IF EXISTS orders.{sql_name(old)}")
    return total


def rows_of_keys(opened: Opened, keys: Sequence[str], show: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a window for given keys, in their order; a key that is not stored has none."""
    given = list(dict.fromkeys(keys))
    found = rows(opened.tables, "copied.sample s WHERE key IN (SELECT unnest($1))", show, [given])
    by_key = {row["key"]: row for row in found}
    return [by_key[key] for key in given if key in by_key]


def rows(
    tables: Tables, source: str, show: Sequence[str], parameters: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    """Rows as the grid takes them.

    Args:
        source: what stands behind FROM, with `s` for copied.sample.
        show: columns for `values`.

    Raises:
        ConfigError: no such column.
    """
    if len(show) > SHOWN_MOST:
        raise ConfigError(f"At most {SHOWN_MOST} columns can be shown at once.")
    shown = [column(tables, name) for name in show]
    listed = ", ".join(f"s.{sql_name(name)}" for name in [*_HEAD, *shown])
    cursor = tables.connection.cursor()
    found = cursor.execute(f"SELECT {listed} FROM {source}", list(parameters)).fetchall()
    tables.remember_shards({row[0]: row[1] for row in found})
    return [
        {
            "key": key,
            "width": width,
            "height": height,
            "text": text,
            "dropped_by": None,
            "values": dict(zip(shown, values, strict=True)),
        }
        for key, _, width, height, text, *values in found
    ]


def column(tables: Tables, name: str) -> str:
    """The column of `sample` with this name; ConfigError where there is none."""
    if name not in tables.columns:
        raise ConfigError(f"There is no column {name!r}; {nearest(name, list(tables.columns))}")
    return name


def _by(tables: Tables, order: Order) -> str:
    if order.random is not None:
        return f"hash(s.key || ' {order.random}'), s.key"
    if not order.sort:
        return f's."row" {"DESC" if order.down else "ASC"}'
    name = sql_name(column(tables, order.sort))
    return f's.{name} {"DESC" if order.down else "ASC"} NULLS LAST, s."row"'


def _limits(opened: Opened, tables: Tables, order: Order) -> list[str]:
    limits = []
    if order.selection:
        known = tables.dataset.selections()
        if order.selection not in known:
            listed = ", ".join(known) or "none yet"
            raise ConfigError(f"There is no selection {order.selection!r} (selections: {listed}).")
        keys = parquet_scan(tables.dataset.selection_path(order.selection))
        limits.append(f"s.key IN (SELECT key FROM {keys})")
    if order.where and order.side != "all":
        if opened.rule_keys is None:
            raise ConfigError("This page has no rules.")
        limits.append(f"s.key IN ({opened.rule_keys(opened, order)})")
    if order.captions:
        if opened.caption_keys is None:
            raise ConfigError("This page has no captions.")
        limits.append(f"s.key IN ({opened.caption_keys(opened, order.captions)})")
    return limits
