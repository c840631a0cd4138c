"""Pictures of any rows, from the dataset's tars: found by offset, decoded, cut, mirrored.

A tar is read in place through a small index of its members that is made when it is first touched;
one that lies in an object store is fetched whole into a scratch folder that holds a few.
"""

from __future__ import annotations

import io
import mmap
import os
import shutil
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from curate.base.errors import DatasetError
from curate.base.files import atomic_path
from curate.store.caption_blend import hash_uniform, key_numbers
from curate.store.dataset import Dataset
from curate.store.shards import IMAGE_EXTENSIONS
from train.data.index import TrainingIndex

# Streams of hashes, apart from those of curate.store.caption_blend.
_CROP, FLIP = 40, 41
_BLOCK = 512
_MEMBER = np.dtype([("number", "<u8"), ("offset", "<u8"), ("size", "<u4")])
_OPEN_TARS = 64
_FETCHED_TARS = 16
_REMEMBERED_BYTES = 256 << 20
"""Of decoded pictures: a set that fits is decoded once, as 80,000 pictures of 32 px."""


class Pictures(Protocol):
    """Where pictures come from."""

    def read(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What the model sees of rows (b,) of one bucket, and size ids.

        Returns:
            (b, H, W, 3) uint8, or latents (b, C, h, w); and (b, 6) float32: height and width as
            stored, crop top and left in pixels of the scaled picture, height and width of the cut.
        """
        ...


class TarPictures:
    """Pictures decoded from the dataset's tars; of one that fits in memory, each once."""

    def __init__(
        self,
        tars: Tars,
        index: TrainingIndex,
        seed: int = 0,
        crop: Literal["center", "random"] = "center",
        flip: bool = False,
    ) -> None:
        self.tars, self.index, self.seed, self.crop, self.flip = tars, index, seed, crop, flip
        shapes = [(b.stop - b.start, b.height, b.width, 3) for b in index.buckets]
        small = sum(int(np.prod(shape)) for shape in shapes) <= _REMEMBERED_BYTES
        # Untouched pages of an empty array take no memory.
        self._memory = (
            [np.empty(shape, np.uint8) for shape in shapes] if small and crop == "center" else None
        )
        self._known = np.zeros(len(index) if self._memory is not None else 0, np.bool_)

    def read(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """As `Pictures.read`.

        Raises:
            DatasetError: a tar or a picture is missing or damaged.
        """
        starts = [bucket.start for bucket in self.index.buckets]
        number = int(np.searchsorted(starts, rows[0], "right")) - 1
        bucket = self.index.buckets[number]
        target = (bucket.height, bucket.width)
        numbers, sizes = self.index.numbers(rows), self.index.sizes(rows)
        u = np.full(len(rows), 0.5)
        if self.crop == "random":
            u = hash_uniform(numbers, epochs, self.seed, _CROP)
        mirrored = np.zeros(len(rows), np.bool_)
        if self.flip:
            mirrored = hash_uniform(numbers, epochs, self.seed, FLIP) < 0.5
        corners = crop_corners(sizes, target, u)
        if self._memory is None:
            x = np.empty((len(rows), *target, 3), np.uint8)
            self._decode(x, np.arange(len(rows)), rows, sizes, corners, mirrored)
        else:
            places = rows - bucket.start
            new = np.flatnonzero(~self._known[rows])
            # A centre crop is the same of a picture and its mirror image.
            self._decode(self._memory[number], places, rows, sizes, corners, None, new)
            self._known[rows] = True
            x = self._memory[number][places]
        if self._memory is not None and mirrored.any():
            x[mirrored] = x[mirrored, :, ::-1]
        ids = np.concatenate([sizes, corners, np.tile(target, (len(rows), 1))], 1)
        return torch.from_numpy(x), torch.from_numpy(ids.astype(np.float32))

    def _decode(
        self,
        out: NDArray[np.uint8],
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        corners: NDArray[np.float64],
        mirrored: NDArray[np.bool_] | None,
        some: NDArray[np.int64] | None = None,
    ) -> None:
        """Write pictures to `out[places]`; of `some` of the rows alone."""
        some = np.arange(len(rows)) if some is None else some
        keys, shards = self.index.keys(rows[some]), self.index.shards(rows[some])
        for at, key, shard in zip(some.tolist(), keys, shards, strict=True):
            flipped = mirrored is not None and bool(mirrored[at])
            content = self.tars.read(shard, key)
            try:
                out[places[at]] = cut(content, out.shape[1:3], tuple(corners[at]), flipped)
            except _UNDECODABLE as error:
                raise DatasetError(
                    f"The picture of sample {key} does not decode ({error}); `caplab check "
                    f"{self.tars.dataset.directory}` says what repairs it."
                ) from error


# Pillow's decoders raise all of these on damaged files.
_UNDECODABLE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def cut(
    content: bytes, target: tuple[int, ...], corner: tuple[float, ...], mirrored: bool = False
) -> NDArray[np.uint8]:
    """A picture scaled to cover `target` (height, width) and cut at `corner` (top, left).

    Filtered with antialiasing, and from a JPEG at a reduced scale of its cosine transform where
    that is still twice as large. A mirrored one is mirrored first and cut then.

    Args:
        corner: pixels of the scaled picture.

    Returns:
        (H, W, 3) uint8, sRGB.
    """
    height, width = target
    with Image.open(io.BytesIO(content)) as opened:
        scale = max(height / opened.height, width / opened.width)
        if opened.format == "JPEG":
            # Twice as large as wanted: what the cosine transform cuts off is soft at its edge.
            needed = (round(2 * opened.width * scale), round(2 * opened.height * scale))
            opened.draft("RGB", needed)
        rgb = opened.convert("RGB")
    scale = max(height / rgb.height, width / rgb.width)
    top, left = (offset / scale for offset in corner)
    across, down = width / scale, height / scale
    if mirrored:
        left = rgb.width - across - left
    # Rounding must not put the box outside.
    left, top = max(min(left, rgb.width - across), 0.0), max(min(top, rgb.height - down), 0.0)
    if rgb.size != (width, height):
        box = (left, top, min(left + across, rgb.width), min(top + down, rgb.height))
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(rgb, np.uint8)
    return pixels[:, ::-1] if mirrored else pixels


def crop_corners(
    sizes: NDArray[np.int64], target: tuple[int, int], u: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B, 2) top and left of the cut, in pixels of the scaled picture; u = 0.5 is the centre."""
    scale = (np.array(target) / sizes).max(1, keepdims=True)
    return u[:, None] * np.maximum(sizes * scale - target, 0)


# ---- tars ---------------------------------------------------------------------------------------


class Tars:
    """Random access to the pictures in a dataset's tars."""

    def __init__(self, dataset: Dataset, folder: Path, shards_from: str | None = None) -> None:
        """
        Args:
            folder: of the members' indexes, and of tars that are fetched.
            shards_from: folder or object store that holds the tars; None = the dataset.
        """
        self.dataset, self.folder = dataset, folder / "tars"
        self._far = _Far(shards_from, self.folder) if shards_from and "://" in shards_from else None
        self._near = Path(shards_from) if shards_from else dataset.directory / "shards"
        self._open: OrderedDict[str, tuple[int, NDArray[Any]]] = OrderedDict()

    def read(self, shard: str, key: str) -> bytes:
        """The encoded picture of a sample.

        Raises:
            DatasetError: the tar is missing or damaged, or does not hold it.
        """
        number = key_numbers([key])[0]
        for fresh in (False, True):
            descriptor, members = self._opened(shard, fresh)
            at = int(np.searchsorted(members["number"], number))
            if at < len(members) and members["number"][at] == number:
                offset, size = int(members["offset"][at]), int(members["size"][at])
                # With its header, which tells whether the index is of this very tar.
                content = os.pread(descriptor, _BLOCK + size, offset - _BLOCK)
                name = content[:100].partition(b"\0")[0].decode("utf-8", "replace")
                if name.partition(".")[0] == key and len(content) == _BLOCK + size:
                    return content[_BLOCK:]
        raise DatasetError(
            f"Sample {key} is not in the tar of shard {shard}; `caplab check "
            f"{self.dataset.directory}` says what repairs it."
        )

    def _opened(self, shard: str, fresh: bool) -> tuple[int, NDArray[Any]]:
        if shard in self._open and not fresh:
            self._open.move_to_end(shard)
            return self._open[shard]
        if shard in self._open:
            os.close(self._open.pop(shard)[0])
        while len(self._open) >= (_FETCHED_TARS if self._far else _OPEN_TARS):
            os.close(self._open.popitem(last=False)[1][0])
        path = self._far.path(shard, fresh) if self._far else self._near / f"{shard}.tar"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            own = self._near == self.dataset.directory / "shards"
            mend = f"`caplab check {self.dataset.directory} --repair` fetches it again"
            raise DatasetError(
                f"{path} is missing; {mend if own else 'shards_from names another place'}."
            ) from error
        self._open[shard] = descriptor, self._members(shard, descriptor, path, fresh)
        return self._open[shard]

    def _members(self, shard: str, descriptor: int, path: Path, fresh: bool) -> NDArray[Any]:
        stored = self.folder / f"{shard}.npy"
        if fresh or not stored.exists():
            members = tar_members(descriptor, path)
            with atomic_path(stored) as temporary, open(temporary, "wb") as file:
                np.save(file, members)
        loaded: NDArray[Any] = np.load(stored, mmap_mode="r")
        return loaded


def tar_members(descriptor: int, path: Path) -> NDArray[Any]:
    """Key number, offset and size of every picture in a tar, by key number.

    Raises:
        DatasetError: it is no tar as ours are.
    """
    found, offset = [], 0
    size = os.fstat(descriptor).st_size
    if not size:
        raise DatasetError(f"{path} is unreadable: it is empty.")
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as tar:
        while offset + _BLOCK <= size and tar[offset]:
            header = tar[offset : offset + _BLOCK]
            try:
                length = int(header[124:136].rstrip(b"\0 "), 8)
                key, _, extension = header[:100].partition(b"\0")[0].decode().partition(".")
            except ValueError as error:
                raise DatasetError(f"{path} is unreadable: no header at {offset:,}.") from error
            offset += _BLOCK
            if extension in IMAGE_EXTENSIONS:
                found.append((key, offset, length))
            offset += -(-length // _BLOCK) * _BLOCK
    members = np.empty(len(found), _MEMBER)
    members["number"] = key_numbers([key for key, _, _ in found])
    members["offset"] = [start for _, start, _ in found]
    members["size"] = [length for _, _, length in found]
    return np.sort(members, order="number")


class _Far:
    """Tars of an object store, fetched whole; the folder holds those used last."""

    def __init__(self, place: str, folder: Path) -> None:
        from curate.intake.locations import locate

        self.place, self.folder = place, folder
        self._store = locate(place).store

    def path(self, shard: str, fresh: bool) -> Path:
        """Where the tar lies now.

        Raises:
            DatasetError: it cannot be fetched.
        """
        path = self.folder / f"{shard}.tar"
        if fresh or not path.exists():
            try:
                with (
                    self._store.open(f"{shard}.tar") as source,
                    atomic_path(path) as temporary,
                    open(temporary, "wb") as target,
                ):
                    shutil.copyfileobj(source, target, 4 << 20)
            except OSError as error:
                raise DatasetError(
                    f"{self.place}/{shard}.tar cannot be fetched ({error})."
                ) from error
            kept = sorted(self.folder.glob("[!.]*.tar"), key=_touched)
            for old in kept[:-_FETCHED_TARS]:
                old.unlink(missing_ok=True)
        os.utime(path)
        return path


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process has just removed it
        return 0.0
