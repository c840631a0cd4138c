"""Draws of a run as records of fixed size, counted and compared in DuckDB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.store.scans import sql_text
from train.data.rows import TrainingIndex
from train.data.sorting import insert
from train.protocols import Drawn

if TYPE_CHECKING:
    import duckdb

RECORD = np.dtype(
    [
        ("step", "<u4"),
        ("row", "<u8"),
        ("kind", "u1"),
        ("fate", "u1"),  # 1 = dropped; above that bit 1 + the kind that was wanted, if another
        ("sample_index", "<u4"),
        ("text", "<u8"),  # the first 64 bits of the sha256 of what was encoded
    ]
)
Records = NDArray[np.void]
AT_A_TIME = 1 << 20
"""Records in memory."""
COLUMNS = "key, kind, wanted, sample_index, text_sha256, dropped, draws"
"""Of a receipt."""


def records_of(step: int, rows: NDArray[np.int64], drawn: Drawn) -> Records:
    """(B,) records of the draws of a step."""
    records = np.empty(len(rows), RECORD)
    records["step"], records["row"] = step, rows
    records["kind"], records["sample_index"] = drawn.kind, drawn.sample_index
    fell_back = drawn.wanted != drawn.kind
    records["fate"] = drawn.dropped + 2 * np.where(fell_back, drawn.wanted + 1, 0)
    records["text"] = [text_mark(text) for text in drawn.texts]
    return records


def text_mark(text: str) -> int:
    """The first 64 bits of the sha256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def count_draws(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    records: Iterable[Records],
    index: TrainingIndex,
    kinds: list[str],
) -> None:
    """Make the table `name` with the columns of a receipt."""
    connection.execute(
        "CREATE TABLE counts (row UBIGINT, kind UTINYINT, sample_index UINTEGER, text UBIGINT, "
        "fate UTINYINT, draws BIGINT); CREATE TABLE keys (row UBIGINT, key VARCHAR)"
    )
    for some in _joined(records):
        insert(
            connection,
            "counts",
            "SELECT row, kind, sample_index, text, fate, count(*) FROM new GROUP BY ALL",
            {field: np.ascontiguousarray(some[field]) for field in RECORD.names or ()},
        )
    rows = connection.cursor().execute("SELECT DISTINCT row FROM counts ORDER BY row")
    while batch := rows.fetchmany(1 << 16):
        own = np.array(batch, np.int64)[:, 0]
        columns = {"row": own, "key": index.keys(own)}
        insert(connection, "keys", "SELECT row, key FROM new", columns)
    names = ", ".join(map(sql_text, kinds))
    connection.execute(
        f"CREATE TABLE {name} AS SELECT key, [{names}][kind + 1] AS kind, "
        f"[{names}][if(fate > 1, fate // 2, kind + 1)] AS wanted, "
        "sample_index::INTEGER AS sample_index, lpad(lower(hex(text)), 16, '0') AS text_sha256, "
        "fate % 2 = 1 AS dropped, sum(draws)::BIGINT AS draws "
        "FROM counts JOIN keys USING (row) GROUP BY ALL"
    )


def differences(connection: duckdb.DuckDBPyConnection, total: int) -> list[str]:
    """Draws in the table `receipt` that are not those in `drawn`, and the other way round."""
    rows = connection.execute(
        f"WITH wrong AS (SELECT {COLUMNS} FROM receipt EXCEPT SELECT {COLUMNS} FROM drawn) "
        "SELECT key, kind, sample_index, text_sha256, sum(draws) OVER ()::BIGINT FROM wrong "
        "ORDER BY ALL LIMIT 1"
    ).fetchall()
    if rows:
        key, kind, sample_index, mark, wrong = rows[0]
        return [
            f"{wrong:,} of {total:,} draws are not those that the seed declares, such as of {key} "
            f"({kind}, sample_index {sample_index}, text {mark})."
        ]
    ((lost,),) = connection.execute(
        "SELECT (SELECT sum(draws) FROM drawn) - (SELECT coalesce(sum(draws), 0) FROM receipt)"
    ).fetchall()
    return [f"{lost:,} of {total:,} draws that the seed declares are missing."] if lost else []


def _joined(records: Iterable[Records]) -> Iterator[Records]:
    """About a million records at a time."""
    waiting: list[Records] = []
    count = 0
    for some in records:
        waiting.append(some)
        count += len(some)
        if count >= AT_A_TIME:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
