"""Where a score lies in a dataset: table, column and type; and the columns that lie there."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.arrow_columns import to_numpy
from curate.scoring.scorers.scorer import Column, Columns
from curate.store.dataset import Dataset

TABLES = ("scores", "embeddings", "fingerprints")
DECODE_ERROR = "decode_error"
# Where a column lies if not under its own name in `scores`.
_PLACE: Mapping[str, tuple[str, str]] = {
    "pixel_hash": ("fingerprints", "pixel_sha256"),
    "phash": ("fingerprints", "phash"),
    "thumbnail": ("fingerprints", "thumbnail"),
    "copy_descriptor": ("fingerprints", "descriptor"),
}
# Types of columns with more than one number a row.
_TYPES: Mapping[str, pa.DataType] = {
    "phash": pa.list_(pa.uint64()),
    "thumbnail": pa.binary(),
    "copy_descriptor": pa.list_(pa.float16()),
}
_EMBEDDING = re.compile(r"(image|text)_embedding(\w*)")


def place_of(name: str) -> tuple[str, str]:
    """Table and column of a graph's column: `image_embedding_b32` is `image_b32` of embeddings."""
    if match := _EMBEDDING.fullmatch(name):
        return "embeddings", match[1] + match[2]
    return _PLACE.get(name, ("scores", name))


def type_of(name: str) -> pa.DataType | None:
    """The type of a column with more than one number a row; None for any other."""
    return pa.list_(pa.float16()) if _EMBEDDING.fullmatch(name) else _TYPES.get(name)


def lies_in(table: str, name: str) -> bool:
    """Whether a graph's column belongs to `table`."""
    return place_of(name)[0] == table


def keyed(keys: list[str], columns: Mapping[str, pa.ChunkedArray], table: str) -> pa.Table:
    """The columns of one table behind their keys."""
    mine = {place_of(name)[1]: array for name, array in columns.items() if lies_in(table, name)}
    return pa.table({"key": pa.array(keys, pa.string()), **mine})


def alt_texts(dataset: Dataset, shard: str) -> dict[str, str | None]:
    """Key -> alt text of every stored sample, in the order of the tar."""
    table = dataset.read_table("samples", shard, columns=["key", "alt_text", "status"])
    stored = table.filter(pc.equal(table.column("status"), "stored")).drop_columns(["status"])
    return dict(zip(*(column.to_pylist() for column in stored.columns), strict=True))


def scored_keys(dataset: Dataset, shard: str) -> dict[str, str | None]:
    """Key of every row of the scores -> why its picture did not decode."""
    if not dataset.has_shard("scores", shard):
        return {}
    table = dataset.read_table("scores", shard, columns=["key", DECODE_ERROR])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def row_count(dataset: Dataset, table: str, shard: str) -> int:
    """Rows of a shard's table; -1 where it is not there."""
    path = dataset.table_path(table, shard)
    return int(pq.read_metadata(path).num_rows) if path.exists() else -1


class StoredColumns:
    """Columns of a shard by key, as scorers take them."""

    def __init__(self, dataset: Dataset, shard: str, names: frozenset[str]) -> None:
        self._columns: dict[str, Column] = {}
        self._rows: dict[str, int] = {}
        for name in sorted(names):
            table, column = place_of(name)
            stored = dataset.read_table(table, shard, columns=["key", column])
            self._rows = {key: row for row, key in enumerate(stored.column("key").to_pylist())}
            self._columns[name] = to_numpy(stored.column(column))

    def take(self, keys: list[str]) -> Columns:
        """The rows of `keys`, in their order."""
        rows = [self._rows[key] for key in keys] if self._columns else []
        return {name: column[rows] for name, column in self._columns.items()}
