"""A dataset's picture embeddings once more, in two files that any few rows are read from at once.

    vectors.f16   (N, D) float16, unit rows as stored; a row of NaN for a picture without embedding
    keys.bin      (N,) 32 bytes, the samples' keys

Rows are those of the embeddings table, shard after shard. A copy, since a column of Parquet is
compressed a page at a time: the few hundred rows that a search looks at lie in as many pages, and
reading them takes seconds where this file takes milliseconds. It costs 2 D + 32 bytes a row of disk
and the memory of one shard to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.arrow_columns import key_array, to_numpy
from curate.base.errors import DatasetError
from curate.duplicates.candidates.vectors import FileVectors, Floats
from curate.store.dataset import Dataset

KEY_BYTES = 32
_VECTORS, _KEYS = "vectors.f16", "keys.bin"
_BLOCK_BYTES = 1 << 20
"""Of float32 at a time: what stays in a core's cache."""


class StoredVectors:
    """The two files in `folder`. Holds both open; threads may share it."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self._vectors = FileVectors(folder / _VECTORS, width)
        # Open from here on: another process may replace the folder.
        self._keys: NDArray[np.bytes_] = np.empty(0, f"S{KEY_BYTES}")
        if len(self):
            self._keys = np.memmap(folder / _KEYS, f"S{KEY_BYTES}", mode="r")

    def __len__(self) -> int:
        return len(self._vectors)

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """The keys of some rows."""
        return [key.decode() for key in np.asarray(self._keys[rows])]

    def row_of(self, key: str) -> int | None:
        """The row of a key. Cost: one pass over the keys, 3 ms for a million in memory."""
        found = np.flatnonzero(self._keys == key.encode())
        return int(found[0]) if len(found) else None

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """(B, D) float32 of the rows, in ascending order cheapest."""
        return self._vectors.take(rows)

    def blocks(
        self, rows: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """All rows, or those given in ascending order, in blocks; without those of NaN."""
        total = len(self) if rows is None else len(rows)
        size = max(64, _BLOCK_BYTES // (4 * self.width))
        for start in range(0, total, size):
            stop = min(start + size, total)
            some = np.arange(start, stop) if rows is None else rows[start:stop]
            block = self.take(some)
            known = ~np.isnan(block[:, 0])
            yield (some, block) if known.all() else (some[known], block[known])

    def exact(
        self, query: Floats, count: int, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `count` rows with the largest inner product with `query` (D,), and it; best first.

        Equal ones stand in the order of their rows. Cost: 2 D bytes read a row, of all or of
        `rows` (ascending).
        """
        best, value = np.empty(0, np.int64), np.empty(0, np.float32)
        for some, block in self.blocks(rows):
            product = block @ query
            if len(best) == count:
                better = product > value[-1]
                some, product = some[better], product[better]
            best, value = np.concatenate([best, some]), np.concatenate([value, product])
            order = np.lexsort((best, -value))[:count]
            best, value = best[order], value[order]
        return best, value


def write_vectors(dataset: Dataset, column: str, folder: Path) -> tuple[int, Mapping[str, int]]:
    """Write the files of `column` of the embeddings table, one shard at a time.

    Returns:
        D, and the first row of every shard.

    Raises:
        DatasetError: shards hold embeddings of different widths, or none has any.
    """
    width, total = 0, 0
    starts: dict[str, int] = {}
    with open(folder / _VECTORS, "wb") as vectors, open(folder / _KEYS, "wb") as keys:
        for shard in dataset.shards():
            if not dataset.has_shard("embeddings", shard):
                continue
            table = dataset.read_table("embeddings", shard, columns=["key", column])
            block = to_numpy(table.column(column)).astype(np.float16)
            if block.shape[1] and width not in (0, block.shape[1]):
                raise DatasetError(
                    f"Shard {shard} of {dataset.directory} has embeddings of {block.shape[1]} "
                    f"numbers, others have {width}; score it again with the same CLIP model."
                )
            if block.shape[1] and not width:
                width = block.shape[1]
                # Shards before it had rows, all without an embedding.
                vectors.write(np.full((total, width), np.nan, np.float16).tobytes())
            if not block.shape[1]:
                block = np.full((table.num_rows, width), np.nan, np.float16)
            starts[shard] = total
            total += table.num_rows
            vectors.write(block.tobytes())
            keys.write(key_array(table.column("key")).astype(f"S{KEY_BYTES}").tobytes())
    if not width:
        raise DatasetError(f"{dataset.directory} has no picture with an embedding to search.")
    return width, starts


def are_whole(folder: Path, rows: int, width: int) -> bool:
    """Whether both files have the size that `rows` give them."""
    sizes = {_VECTORS: 2 * rows * width, _KEYS: KEY_BYTES * rows}
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in sizes.items()
    )
