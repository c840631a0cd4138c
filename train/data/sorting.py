"""DuckDB as a sorter: tables that outgrow half a gigabyte lie in a scratch folder meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.files import temporary_path
from curate.store.scans import sql_text

if TYPE_CHECKING:
    import duckdb


@contextmanager
def sorter(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database, whose scratch folder in `folder` is removed with it."""
    import duckdb

    scratch = temporary_path(folder / "sorting")
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with duckdb.connect(config={"memory_limit": "512MB", "threads": 1}) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(f"SET temp_directory = {sql_text(scratch)}")
            yield connection
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, query: str, columns: Mapping[str, Any]
) -> None:
    """Add the rows that `query` makes of the table `new`, which has these columns."""
    import pyarrow as pa

    connection.register("new", pa.table(dict(columns)))
    connection.execute(f"INSERT INTO {table} {query}")
    connection.unregister("new")
