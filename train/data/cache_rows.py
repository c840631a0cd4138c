"""Writing pictures or latents of all rows of an index; see `train.data.cache`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import DatasetError
from curate.base.progress import progress
from curate.base.threads import in_threads
from train.data.cache_files import CacheFiles, CachePart, cache_folder
from train.data.cached import UNDECODABLE, RowFiles, rows_identity
from train.data.index import TrainingIndex
from train.data.pictures import TarPictures, Tars
from train.protocols import Latents

_PIXELS = 1 << 22  # of a batch on the device


class RowsWriter:
    """Pictures, or latents, of all rows of an index and of what is held out."""

    def __init__(
        self,
        parent: Path,
        index: TrainingIndex,
        held_out: TrainingIndex,
        latents: Latents | None,
        precision: torch.dtype,
        file_bytes: int,
    ) -> None:
        self.kind = "pictures" if latents is None else "latents"
        self.indexes, self.latents = (index, held_out), latents
        self.dtype = torch.uint8 if latents is None else precision
        self.identity = rows_identity(index, held_out, latents)
        self.folder = cache_folder(parent, self.kind, self.identity)
        self.file_bytes = file_bytes

    def _begin(self) -> tuple[CacheFiles, list[RowFiles]]:
        files = CacheFiles.begin(
            self.folder,
            self.identity,
            precision=str(self.dtype).removeprefix("torch."),
            file_bytes=self.file_bytes,
            **{UNDECODABLE: {}},
        )
        size, own = self.dtype.itemsize, files.manifest["file_bytes"]
        return files, [RowFiles.of(index, self.latents, size, own) for index in self.indexes]

    def look(self, verify: bool, say: Callable[[str], None]) -> CachePart:
        """What is missing, before any work; forgets what is damaged or may decode by now."""
        files, layouts = self._begin()
        damaged = files.damaged(hashes=verify)
        for name in damaged:
            say(f"{files.path(name)} is not what was written; it is made again")
        again = {*files.manifest[UNDECODABLE], *damaged}
        for name in again:
            files.drop(name)
        if verify and again:
            files.manifest[UNDECODABLE] = {}
            files.save()
        every = [(layout, *file) for layout in layouts for file in layout.all()]
        left = [file for file in every if file[1] not in files.arrays]
        needs = sum(
            (stop - start) * int(np.prod(layout.shapes[bucket])) * self.dtype.itemsize
            for layout, _, bucket, start, stop in left
        )
        return CachePart(
            self.kind,
            self.folder,
            sum(map(len, self.indexes)),
            sum(stop - start for *_, start, stop in left),
            needs,
        )

    def write(self, tars: Callable[[], Tars], device: torch.device, threads: int) -> int:
        """Write what is missing; returns how many pictures did not decode.

        Args:
            tars: opens the tars, for one thread each.
        """
        if self.latents is not None:
            self.latents.to(device)
        with progress(sum(map(len, self.indexes)), self.kind) as bar:
            files, layouts = self._begin()
            for index, layout in zip(self.indexes, layouts, strict=True):
                keys = layout.name("keys")
                if keys not in files.arrays:
                    numbers = np.zeros(0, np.uint64)
                    if len(index):
                        numbers = index.numbers(np.arange(len(index)))
                    files.write({keys: torch.from_numpy(numbers.view(np.int64))})
                decode = _Decoder(tars, index)
                for name, bucket, start, stop in layout.all():
                    if name not in files.arrays:
                        count = max(_PIXELS // _pixels(layout, bucket), 1)
                        batches = [
                            np.arange(first, min(first + count, stop))
                            for first in range(start, stop, count)
                        ]
                        x = torch.empty((stop - start, *layout.shapes[bucket]), dtype=self.dtype)
                        broken: list[str] = []
                        for rows, (pictures, bad) in zip(
                            batches, in_threads(decode, batches, threads), strict=True
                        ):
                            x[rows - start] = self._encoded(pictures, device)
                            broken += bad
                        if broken:
                            files.manifest[UNDECODABLE][name] = broken
                        files.write({name: x})
                    bar.update(stop - start)
            files.save()
            return sum(map(len, files.manifest[UNDECODABLE].values()))

    def _encoded(self, pictures: Tensor, device: torch.device) -> Tensor:
        if self.latents is None:
            return pictures
        x = pictures.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            return self.latents.encode(x).to("cpu", self.dtype)


def _pixels(layout: RowFiles, bucket: int) -> int:
    return layout.buckets[bucket].width * layout.buckets[bucket].height


class _Decoder:
    """Pictures of some rows, and the keys of those that do not decode; for several threads."""

    def __init__(self, tars: Callable[[], Tars], index: TrainingIndex) -> None:
        self.tars, self.index = tars, index
        self._own = threading.local()

    def __call__(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[str]]:
        if not hasattr(self._own, "pictures"):
            # Open tars and what is remembered of them belong to one thread.
            self._own.pictures = TarPictures(self.tars(), self.index)
        pictures: TarPictures = self._own.pictures
        try:
            return pictures.read(rows, np.zeros_like(rows))[0], []
        except DatasetError:
            return self._one_by_one(pictures, rows)

    def _one_by_one(
        self, pictures: TarPictures, rows: NDArray[np.int64]
    ) -> tuple[Tensor, list[str]]:
        found: list[Tensor | None] = []
        broken = []
        shards = self.index.shards(rows)
        for row, key, shard in zip(rows, self.index.keys(rows), shards, strict=True):
            pictures.tars.read(shard, key)  # a missing tar is no broken picture
            try:
                found.append(pictures.read(row[None], np.zeros(1, np.int64))[0])
            except DatasetError:
                broken.append(key)
                found.append(None)
        blank = next((torch.zeros_like(x) for x in found if x is not None), None)
        if blank is None:
            starts = [bucket.start for bucket in self.index.buckets]
            bucket = self.index.buckets[int(np.searchsorted(starts, rows[0], "right")) - 1]
            blank = torch.zeros((1, bucket.height, bucket.width, 3), dtype=torch.uint8)
        return torch.cat([blank if x is None else x for x in found]), broken
