"""Parquet files as they are read: by DuckDB, these and nothing else; by Arrow, one of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import plain_path


def parquet_scan(files: Path | Iterable[Path], **options: bool | str) -> str:
    """What stands behind FROM in DuckDB's SQL to read Parquet files: these, all, nothing else.

    Every scan is made here. DuckDB by itself takes a path for a pattern, so that neighbours are
    read too, and a folder above that is named `width=7` for a column that hides the file's own.

    Args:
        files: one or several, at least one; each is read as it is named (see plain_path).
        options: further arguments of read_parquet, such as `union_by_name` or `filename` (the
            column that tells of a file its plain path: compare its name alone).
    """
    paths = [files] if isinstance(files, Path) else list(files)
    listed = ", ".join(sql_text(plain_path(path)) for path in paths)
    texts = {k: sql_text(v) if isinstance(v, str) else v for k, v in options.items()}
    given = {"hive_partitioning": False, **texts}
    return f"read_parquet([{listed}], {', '.join(f'{k} = {v}' for k, v in given.items())})"


def sql_text(text: Path | str) -> str:
    """A text, or a path as it stands, as a literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def sql_name(name: str) -> str:
    """A column's name as SQL quotes it; lists bring names of any kind."""
    return '"' + name.replace('"', '""') + '"'


def parquet_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The rows of one file of ours, with its own columns (of folders above that are named
    key=value, Arrow's datasets would make some).

    Raises:
        FileNotFoundError: it is missing.
        DatasetError: it is unreadable.
    """
    try:
        with pq.ParquetFile(path) as parquet:
            return parquet.read(columns=columns)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"{path} is unreadable ({error}); delete it and run the same command again."
        ) from error


def duckdb_type(kind: pa.DataType) -> str:
    """The name of a column's type in SQL (registering Arrow tables would import pandas)."""
    if pa.types.is_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    return _DUCKDB_TYPES[kind]


_DUCKDB_TYPES: Mapping[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.timestamp("ms", tz="UTC"): "TIMESTAMPTZ",
}
