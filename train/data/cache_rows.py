"""Writing pictures or latents of all rows of an index; see `train.data.cache`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import DatasetError
from curate.base.progress import progress
from curate.base.threads import in_threads
from train.data.cache_files import CacheFiles, CachePart
from train.data.cached import RowFile, kind_of, row_files, rows_identity
from train.data.index import TrainingIndex
from train.data.pictures import TarPictures, Tars
from train.protocols import Latents

_PIXELS = 1 << 22  # of a batch on the device


class RowsWriter:
    """Pictures of all rows of an index and of what is held out, or latents of the former.

    What is held out is looked at as pictures.
    """

    def __init__(
        self,
        parent: Path,
        index: TrainingIndex,
        held_out: TrainingIndex,
        latents: Latents | None,
        dtype: torch.dtype,
        file_bytes: int,
    ) -> None:
        self.latents, self.dtype = latents, torch.uint8 if latents is None else dtype
        self.files = CacheFiles.begin(
            parent,
            kind_of(latents),
            rows_identity(index, held_out, latents),
            precision=str(self.dtype).removeprefix("torch."),
            file_bytes=file_bytes,
        )
        self.indexes = (index, held_out) if latents is None else (index,)
        size = self.files.manifest["file_bytes"]
        self.every = [
            (own, file)
            for own in self.indexes
            for file in row_files(own, latents, self.dtype.itemsize, size)
        ]

    def look(self, verify: bool, say: Callable[[str], None]) -> CachePart:
        """What is missing, before any work; forgets what is damaged or may decode by now."""
        changed = self.files.forget_damaged(verify, say)
        for name in [name for name, note in self.files.notes.items() if note["undecodable"]]:
            del self.files.notes[name]
            changed = True
        if verify and changed:
            self.files.save()
        left = [file for _, file in self.every if file.name not in self.files.notes]
        return CachePart(
            kind_of(self.latents),
            self.files.folder,
            sum(map(len, self.indexes)),
            sum(file.stop - file.start for file in left),
            sum((f.stop - f.start) * math.prod(f.shape) * self.dtype.itemsize for f in left),
        )

    def write(self, tars: Callable[[], Tars], device: torch.device, threads: int) -> int:
        """Write what is missing; returns how many pictures did not decode.

        Args:
            tars: opens the tars, for one thread each.
        """
        if self.latents is not None:
            self.latents.to(device)
        with progress(sum(map(len, self.indexes)), kind_of(self.latents)) as bar:
            for index, file in self.every:
                if file.name not in self.files.notes:
                    numbers = index.numbers(np.arange(file.start, file.stop)).view(np.int64)
                    x = torch.empty((len(numbers), *file.shape), dtype=self.dtype)
                    broken = []
                    batches = _batches(file)
                    decoded = in_threads(_Decoder(tars, index, file), batches, threads)
                    for rows, (pictures, bad) in zip(batches, decoded, strict=True):
                        x[rows - file.start] = self._encoded(pictures, device)
                        broken += bad
                    tensors = {"numbers": torch.from_numpy(numbers), "x": x}
                    self.files.write(file.name, tensors, undecodable=broken)
                bar.update(file.stop - file.start)
        self.files.save()
        return sum(len(note["undecodable"]) for note in self.files.notes.values())

    def _encoded(self, pictures: Tensor, device: torch.device) -> Tensor:
        if self.latents is None:
            return pictures
        x = pictures.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            return self.latents.encode(x).to("cpu", self.dtype)


def _batches(file: RowFile) -> Sequence[NDArray[np.int64]]:
    """The same after a kill, as an encoder's rounding hangs on the batch."""
    count = max(_PIXELS // (file.bucket.width * file.bucket.height), 1)
    starts = range(file.start, file.stop, count)
    return [np.arange(start, min(start + count, file.stop)) for start in starts]


class _Decoder:
    """Pictures of some rows, and the keys of those that do not decode; for several threads."""

    def __init__(self, tars: Callable[[], Tars], index: TrainingIndex, file: RowFile) -> None:
        self.tars, self.index, self.file = tars, index, file
        self._own = threading.local()

    def __call__(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[str]]:
        if not hasattr(self._own, "pictures"):
            # Open tars and what is remembered of them belong to one thread.
            self._own.pictures = TarPictures(self.tars(), self.index)
        pictures: TarPictures = self._own.pictures
        try:
            return pictures.read(rows, np.zeros_like(rows))[0], []
        except DatasetError:
            pass  # which of them it is
        bucket = self.file.bucket
        found = torch.zeros((len(rows), bucket.height, bucket.width, 3), dtype=torch.uint8)
        broken = []
        keys, shards = self.index.keys(rows), self.index.shards(rows)
        for place, (key, shard) in enumerate(zip(keys, shards, strict=True)):
            pictures.tars.read(shard, key)  # a missing tar is no broken picture
            try:
                found[place] = pictures.read(rows[[place]], np.zeros(1, np.int64))[0][0]
            except DatasetError:
                broken.append(key)
        return found, broken
