"""Draws of a run as records, counted in DuckDB within a limit of memory."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.base.files import temporary_path
from curate.store.scans import sql_text
from train.data.index import TrainingIndex
from train.protocols import Drawn

RECORD = np.dtype(
    [
        ("step", "<u4"),
        ("row", "<u8"),
        ("kind", "u1"),
        ("dropped", "u1"),
        ("sample_index", "<u4"),
        ("text", "<u8"),  # the first 64 bits of the sha256 of what was encoded
    ]
)
Records = NDArray[np.void]
AT_A_TIME = 1 << 20
"""Records in memory."""
COLUMNS = "key, kind, sample_index, text_sha256, dropped, draws"
"""Of a receipt."""


def records_of(step: int, rows: NDArray[np.int64], drawn: Drawn) -> Records:
    records = np.empty(len(rows), RECORD)
    records["step"], records["row"] = step, rows
    records["kind"], records["sample_index"] = drawn.kind, drawn.sample_index
    records["dropped"] = drawn.dropped
    records["text"] = [text_mark(text) for text in drawn.texts]
    return records


def text_mark(text: str) -> int:
    """The first 64 bits of the sha256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Ledger:
    """Draws counted in DuckDB, within a limit of memory, with the keys and kinds of an index."""

    def __init__(self, scratch: Path, index: TrainingIndex, kinds: list[str]) -> None:
        self.index, self.kinds = index, kinds
        self._scratch = temporary_path(scratch / "receipt-sorting")

    def __enter__(self) -> Ledger:
        import duckdb

        self._scratch.mkdir(parents=True, exist_ok=True)
        self.connection = duckdb.connect(config={"memory_limit": "512MB", "threads": 1})
        self.connection.execute("SET enable_progress_bar = false")
        self.connection.execute(f"SET temp_directory = {sql_text(self._scratch)}")
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def add(self, name: str, records: Iterable[Records]) -> None:
        """Make the table `name` with the columns of a receipt."""
        self.connection.execute(
            "CREATE OR REPLACE TABLE _counts (row UBIGINT, kind UTINYINT, sample_index UINTEGER, "
            "text UBIGINT, dropped UTINYINT, draws BIGINT)"
        )
        for some in _joined(records):
            self._insert(
                "_counts",
                "SELECT row, kind, sample_index, text, dropped, count(*) FROM new GROUP BY ALL",
                {field: np.ascontiguousarray(some[field]) for field in RECORD.names or ()},
            )
        self.connection.execute("CREATE OR REPLACE TABLE _keys (row UBIGINT, key VARCHAR)")
        rows = self.connection.cursor().execute("SELECT DISTINCT row FROM _counts ORDER BY row")
        while batch := rows.fetchmany(1 << 16):
            own = np.array([row for (row,) in batch], np.int64)
            arrays: dict[str, Any] = {"row": own.astype(np.uint64), "key": self.index.keys(own)}
            self._insert("_keys", "SELECT row, key FROM new", arrays)
        names = ", ".join(map(sql_text, self.kinds))
        self.connection.execute(
            f"CREATE OR REPLACE TABLE {name} AS SELECT key, [{names}][kind + 1] AS kind, "
            "sample_index::INTEGER AS sample_index, lpad(lower(hex(text)), 16, '0') AS "
            "text_sha256, dropped = 1 AS dropped, sum(draws)::BIGINT AS draws "
            "FROM _counts JOIN _keys USING (row) GROUP BY ALL"
        )

    def foreign_texts(self) -> list[str]:
        """Texts in the receipt that the dataset does not hold for their picture and kind."""
        self.connection.execute("CREATE TABLE held (key TEXT, kind TEXT, text_sha256 TEXT)")
        for start in range(0, len(self.index), 1 << 14):
            rows = np.arange(start, min(start + (1 << 14), len(self.index)))
            keys = self.index.keys(rows)
            for kind in self.kinds:
                own = [
                    (key, f"{text_mark(text):016x}")
                    for key, texts in zip(keys, self.index.captions(rows, kind), strict=True)
                    for _, text in texts
                ]
                if own:
                    arrays = {"key": [key for key, _ in own], "text": [mark for _, mark in own]}
                    self._insert("held", f"SELECT key, {sql_text(kind)}, text FROM new", arrays)
        empty = f"{text_mark(''):016x}"
        rows = self.connection.execute(
            "SELECT key, kind, text_sha256, draws, sum(draws) OVER ()::BIGINT FROM receipt WHERE "
            f"CASE WHEN dropped THEN text_sha256 <> '{empty}' ELSE (key, kind, text_sha256) NOT IN "
            "(SELECT (key, kind, text_sha256) FROM held) END ORDER BY ALL LIMIT 1"
        ).fetchall()
        return [
            f"{total:,} draws were trained on a text that the dataset does not hold for their "
            f"picture and kind, such as {key} ({kind}, text {mark})."
            for key, kind, mark, _, total in rows
        ]

    def differences(self, total: int) -> list[str]:
        """Draws in the receipt that are not those in the table `drawn`."""
        rows = self.connection.execute(
            f"WITH wrong AS (SELECT {COLUMNS} FROM receipt EXCEPT SELECT {COLUMNS} FROM drawn) "
            "SELECT key, kind, sample_index, draws, sum(draws) OVER ()::BIGINT FROM wrong "
            "ORDER BY ALL LIMIT 1"
        ).fetchall()
        if rows:
            key, kind, sample_index, _, wrong = rows[0]
            return [
                f"{wrong:,} of {total:,} draws are not those that the seed declares, such as of "
                f"{key} ({kind}, sample_index {sample_index})."
            ]
        ((lost,),) = self.connection.execute(
            "SELECT (SELECT sum(draws) FROM drawn) - (SELECT coalesce(sum(draws), 0) FROM receipt)"
        ).fetchall()
        return [f"{lost:,} of {total:,} draws that the seed declares are missing."] if lost else []

    def _insert(self, table: str, query: str, arrays: dict[str, Any]) -> None:
        import pyarrow as pa

        self.connection.register("new", pa.table(arrays))
        self.connection.execute(f"INSERT INTO {table} {query}")
        self.connection.unregister("new")


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
