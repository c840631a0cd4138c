"""The captions of some pictures, by all who wrote any, each with the mark that a person gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from curate.store.captions import text_mark
from curate.store.contract import CAPTIONS, WRITTEN_BY
from curate.store.dataset import Dataset
from curate.store.scans import parquet_rows, parquet_scan, sql_name, sql_text
from recaption.human.marks import Judged, judged_by, said_text, told

if TYPE_CHECKING:
    import duckdb

_NAMES = [name for name in CAPTIONS.names if name != "signature"]
_ORDER = ("alt", "short", "descriptive")
# What is asked of all captions at once; others are read by their keys.
_ASKED = {"key": "VARCHAR", "kind": "VARCHAR", "sample_index": "INTEGER", "text": "VARCHAR"}
_ASKED |= {"raw_text": "VARCHAR", "status": "VARCHAR", "reason": "VARCHAR", "flags": "VARCHAR[]"}


def caption_rows(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    places: Mapping[str, str],
    mine: str,
    sets: Sequence[tuple[str, str]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Key -> its captions in a fixed order: alt texts first, then by kind and source.

    A mark of one's own stands with the caption that it is about, and by itself where that is gone;
    then `gone` names the caption.
    Reads the shards that hold these pictures, and of those the rows of these keys.

    Args:
        places: key -> shard.
        mine: the source of one's own marks.
        sets: (source, kind) that are wanted; None means all.
    """
    sources = dataset.caption_sources()
    if sets is not None:
        sources = [name for name in sources if name == mine or name in dict(sets)]
    shards = sorted({*places.values()})
    parts, rows = [], []
    for source in sources:
        held = [shard for shard in shards if dataset.has_shard("captions", shard, source)]
        if source.startswith(WRITTEN_BY):
            # Marks are written while one reads, and DuckDB opens a file more than once a query.
            for shard in held:
                table = dataset.read_table("captions", shard, source)
                theirs = table.filter(pc.field("key").isin(list(places))).to_pylist()
                rows += [{**row, "source": source} for row in theirs]
        elif held:
            files = [dataset.table_path("captions", shard, source) for shard in held]
            parts.append(
                f"SELECT {sql_text(source)} AS source, COLUMNS('^({'|'.join(_NAMES)})$') "
                f"FROM {parquet_scan(files, union_by_name=True)} WHERE key IN $keys"
            )
    if parts:
        rows += fetch(connection, " UNION ALL BY NAME ".join(parts), {"keys": list(places)})
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in places}
    marks = {
        judged: row
        for row in rows
        if row["source"] == mine and (judged := judged_by(row)) is not None
    }
    written = {_id(row) for row in rows}
    for row in sorted(rows, key=_place):
        alone = row["source"] != mine or judged_by(row) not in written
        if alone if sets is None else (row["source"], row["kind"]) in sets:
            found[row["key"]].append(_sent(row, marks.get(_id(row)), mine))
    return found


def captions_of(connection: duckdb.DuckDBPyConnection, dataset: Dataset, source: str) -> str:
    """What stands behind FROM to read a source's captions, by queries on this cursor.

    People's are read whole, into a temporary table: they are written while one reads, and DuckDB
    opens a file more than once a query.
    """
    if not source.startswith(WRITTEN_BY):
        return dataset.scan("captions", source, union_by_name=True)
    columns: dict[str, list[Any]] = {name: [] for name in _ASKED}
    for path in dataset.table_files("captions", source):
        read = parquet_rows(path, list(_ASKED))
        for name, values in columns.items():
            values += read.column(name).to_pylist()
    table = sql_name(f"captions of {source}")
    declared = ", ".join(f"{name} {kind}" for name, kind in _ASKED.items())
    given = ", ".join(f"unnest(${name}::{kind}[])" for name, kind in _ASKED.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({declared})")
    connection.execute(f"INSERT INTO {table} SELECT {given}", columns)
    return table


def fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The result of a query, one dict a row."""
    done = connection.execute(sql, dict(parameters or {}))
    names = [column[0] for column in done.description or []]
    return [dict(zip(names, row, strict=True)) for row in done.fetchall()]


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = row["kind"]
    first = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return (first, kind, row["source"], row.get("sample_index") or 0)


def _id(row: Mapping[str, Any]) -> Judged:
    return Judged(row["key"], row["kind"], row["source"], row.get("sample_index") or 0)


def _sent(row: dict[str, Any], mark: Mapping[str, Any] | None, mine: str) -> dict[str, Any]:
    seen = text_mark(said_text(row) or "")
    shown = None
    if mark is not None:
        shown = {name: told(mark)[name] for name in ("mark", "text", "created_at")}
        # Of a text that its captioner has replaced since.
        shown["stale"] = told(mark)["text_sha256"] != seen
    gone = judged_by(row) if row["source"] == mine else None
    return {
        **{name: row.get(name) for name in (*_NAMES, "source")},
        "text_sha256": seen,
        "mark": shown,
        "markable": row["source"] != mine,
        "gone": None if gone is None else vars(gone),
    }
