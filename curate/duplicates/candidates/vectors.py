"""Rows of vectors that may be too many for memory: read in blocks, or any few of them."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STRETCH = 2048
"""Rows of a file that are looked at together."""
_DENSE = 12
"""Reading this many rows at once costs less than one row alone by a call of its own."""


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
        # Rows of one stretch of the file that are many are one read; few are one read a run.
        stretch = np.flatnonzero(np.diff(rows // _STRETCH)) + 1
        for start, stop in pairwise([0, *stretch.tolist(), len(rows)]):
            some = rows[start:stop]
            if not len(some):
                continue
            low, high = int(some.min()), int(some.max()) + 1
            if _DENSE * len(some) >= high - low:
                span = np.empty((high - low, self.width), np.float16)
                self._read(span, low)
                out[start:stop] = span[some - low]
                continue
            edges = (np.flatnonzero(np.diff(some) != 1) + 1).tolist()
            for first, last in pairwise([0, *edges, len(some)]):
                self._read(out[start + first : start + last], int(some[first]))
        return out.astype(np.float32)

    def _read(self, into: NDArray[np.float16], row: int) -> None:
        os.preadv(self._file, [into.view(np.uint8).data], 2 * self.width * row)
