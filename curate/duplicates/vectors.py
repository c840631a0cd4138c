"""Rows of vectors that may be too many for memory: read in blocks, or any few of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Vectors(Protocol):
    """(N, D) vectors; `take` gives float32 copies of any rows, cheapest in ascending order."""

    width: int

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """(B, D) float32 of the rows."""
        ...


class ArrayVectors:
    """Vectors in memory: all rows of an array, or those that `chosen` names, in that order."""

    def __init__(
        self, array: NDArray[np.floating], chosen: NDArray[np.int64] | None = None
    ) -> None:
        self.array, self.chosen, self.width = array, chosen, array.shape[1]

    def __len__(self) -> int:
        return len(self.array if self.chosen is None else self.chosen)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """(B, D) float32 of the rows."""
        wanted = rows if self.chosen is None else self.chosen[rows]
        return self.array[wanted].astype(np.float32, copy=False)


class FileVectors:
    """Vectors in a file of float16 rows, 2 D bytes each, without a header: all, or `chosen` ones.

    Read, not mapped: mapped pages would count as this process's memory.
    """

    def __init__(self, path: Path, width: int, chosen: NDArray[np.int64] | None = None) -> None:
        self.path, self.width = path, width
        stored = path.stat().st_size // (2 * width)
        self._chosen = None if chosen is None or len(chosen) == stored else chosen
        self._rows = stored if chosen is None else len(chosen)
        self._file = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return self._rows

    def __del__(self) -> None:
        os.close(self._file)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """(B, D) float32 of the rows."""
        if self._chosen is not None:
            rows = self._chosen[rows]
        out = np.empty((len(rows), self.width), np.float16)
        size = 2 * self.width
        # Runs of neighbours are one read each.
        edges = np.flatnonzero(np.diff(rows) != 1) + 1
        starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(rows)]
        for start, stop in zip(starts, stops, strict=True):
            if start < stop:
                os.preadv(
                    self._file, [out[start:stop].view(np.uint8).data], int(rows[start]) * size
                )
        return out.astype(np.float32)
