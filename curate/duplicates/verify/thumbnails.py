"""Thumbnails of a whole dataset, a few at a time: only those of candidate pairs are ever read.

A thumbnail is 4.5 KB, the rest that a search needs of a sample about 100 bytes, so thumbnails alone
decide how large a dataset fits in memory. They stay on disk: the first candidate in a shard unpacks
that shard's column into a scratch file of fixed-size rows, and every later one is a read of 4.5 KB.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.files import remove_leftovers, temporary_path
from curate.pictures.perceptual_hashes import THUMBNAIL

Thumbs = NDArray[np.uint8]
"""(B, 4608) uint8, see curate.pictures.perceptual_hashes."""

_SIZE = THUMBNAIL


class Thumbnails:
    """Thumbnails by row number, read on demand; threads may read at once.

    Args:
        shard: (N,) number of the shard of each row; place: (N,) its row within that shard.
        read: shard number -> (B, 4608) thumbnails of that shard, zeros where there is none.
        scratch: an empty folder for the unpacked shards.
    """

    def __init__(
        self,
        shard: NDArray[np.int32],
        place: NDArray[np.int32],
        read: Callable[[int], Thumbs],
        scratch: Path,
    ) -> None:
        self._shard, self._place = shard, place
        self._read, self._scratch = read, scratch
        self._unpacking = threading.Lock()

    def take(self, rows: NDArray[np.int64]) -> Thumbs:
        """(B, 4608) uint8 of the rows, which may repeat. Memory: 9 KB a row asked for."""
        wanted, back = np.unique(rows, return_inverse=True)
        out = np.empty((len(wanted), _SIZE), np.uint8)
        order = np.lexsort((self._place[wanted], self._shard[wanted]))
        shards = self._shard[wanted[order]]
        for start, stop in _runs(shards):
            file = os.open(self._unpacked(int(shards[start])), os.O_RDONLY)
            try:
                for slot in order[start:stop]:
                    os.preadv(file, [out[slot]], int(self._place[wanted[slot]]) * _SIZE)
            finally:
                os.close(file)
        return out[back]

    def _unpacked(self, shard: int) -> Path:
        path = self._scratch / f"{shard}.raw"
        with self._unpacking:
            if not path.exists():
                partial = path.with_suffix(".part")
                self._read(shard).tofile(partial)
                partial.rename(path)
        return path


def in_memory(thumbnails: Thumbs, scratch: Path) -> Thumbnails:
    """Thumbnails that are at hand already, as one shard."""
    rows = np.arange(len(thumbnails), dtype=np.int32)
    return Thumbnails(np.zeros_like(rows), rows, lambda _: thumbnails, scratch)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder for scratch files, gone afterwards; one left by a killed run goes first.

    Args:
        beside: the folder that it is made in, on the disk that has the room.
    """
    remove_leftovers(beside)
    folder = temporary_path(beside / f"scratch-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(values: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """(start, stop) of every run of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    yield from (
        zip([0, *edges.tolist()], [*edges.tolist(), len(values)], strict=True)
        if len(values)
        else ()
    )
