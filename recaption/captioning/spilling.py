"""A database for joins that are larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import duckdb

from curate.base.files import plain_path
from curate.store.dataset import Dataset
from curate.store.scans import sql_text

# Of DuckDB; what does not fit waits on disk.
_MEMORY = "2GB"


@contextmanager
def spilling_database(dataset: Dataset) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database that spills into a folder of the dataset."""
    scratch = dataset.directory / ".scratch"
    scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="spilled-", dir=scratch) as folder:
        connection = duckdb.connect()
        try:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            # Numbers of rows are only handles; without an order to keep, less stays in memory.
            connection.execute("SET preserve_insertion_order = false")
            connection.execute(f"SET temp_directory = {sql_text(plain_path(folder))}")
            yield connection
        finally:
            connection.close()
