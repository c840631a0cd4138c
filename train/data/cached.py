"""Pictures, latents and text features that were computed once, mapped into memory.

    CACHE/pictures-ID/  keys, 00000 ...            uint8 (n, H, W, 3)
    CACHE/latents-ID/   keys, 00000 ...            (n, C, h, w), as precise as they are computed
    CACHE/text-ID/      00000.sequence ...         features by the sha256 of the caption's text

Pictures and latents stand in the order of the training index, a file for so many rows of one
bucket, held-out ones in files of their own; arithmetic says where a row lies, and the keys' numbers
say whether it is that row. Text features have no order of samples: a caption has the same in every
dataset, arm and seed. `train.data.cache` writes all of it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint
from curate.store.caption_blend import hash_uniform
from train.data.cache_files import CacheFiles, cache_folder
from train.data.index import HELD_OUT, TRAINING, Bucket, TrainingIndex
from train.data.pictures import FLIP, crop_corners
from train.model_settings import ModelConfig
from train.protocols import Latents, TextEncoder, TextFeatures
from train.settings import TrainSettings

HASH_BYTES = 32
UNDECODABLE = "undecodable"


# ---- pictures and latents -----------------------------------------------------------------------


@dataclass(frozen=True)
class RowFiles:
    """Which file holds which rows of an index: `rows` of a bucket each, the last one fewer."""

    part: str
    buckets: tuple[Bucket, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of one row, for each bucket."""
    rows: tuple[int, ...]
    firsts: tuple[int, ...]
    """Number of each bucket's first file, and behind the last the number of all files."""

    @classmethod
    def of(
        cls, index: TrainingIndex, latents: Latents | None, itemsize: int, file_bytes: int
    ) -> RowFiles:
        """Files of about `file_bytes` for pictures, or for latents."""
        shapes = [_row_shape(bucket, latents) for bucket in index.buckets]
        rows = [max(file_bytes // (int(np.prod(shape)) * itemsize), 1) for shape in shapes]
        counts = [
            -(-(bucket.stop - bucket.start) // count)
            for bucket, count in zip(index.buckets, rows, strict=True)
        ]
        firsts = np.cumsum([0, *counts]).tolist()
        return cls(index.part, tuple(index.buckets), tuple(shapes), tuple(rows), tuple(firsts))

    def name(self, number: int | str) -> str:
        """Of a file in the manifest."""
        name = f"{number:05d}" if isinstance(number, int) else number
        return name if self.part == TRAINING else f"{self.part}-{name}"

    def all(self) -> list[tuple[str, int, int, int]]:
        """Name, bucket, and rows [start, stop) of the index of every file, in order."""
        files = []
        for number, bucket in enumerate(self.buckets):
            starts = range(bucket.start, bucket.stop, self.rows[number])
            for nth, start in enumerate(starts):
                stop = min(start + self.rows[number], bucket.stop)
                files.append((self.name(self.firsts[number] + nth), number, start, stop))
        return files

    def bucket_of(self, row: int) -> int:
        """The bucket of a row."""
        return int(np.searchsorted([bucket.start for bucket in self.buckets], row, "right")) - 1


def _row_shape(bucket: Bucket, latents: Latents | None) -> tuple[int, ...]:
    if latents is None:
        return (bucket.height, bucket.width, 3)
    return (latents.channels, bucket.height // latents.factor, bucket.width // latents.factor)


class CachedPictures:
    """Pictures, or latents, of an index from its cache; a form of `train.data.pictures.Pictures`.

    Centre crops alone: a random one would be the same in every epoch. Pictures may be mirrored, by
    the draws of pictures that are decoded; latents may not, as an autoencoder's latents of a
    mirrored picture are not the mirrored latents.
    """

    def __init__(
        self,
        files: CacheFiles,
        index: TrainingIndex,
        latents: Latents | None = None,
        seed: int = 0,
        flip: bool = False,
    ) -> None:
        """
        Raises:
            ConfigError: latents are to be mirrored.
            DatasetError: the cache does not hold all rows, or some pictures did not decode.
        """
        if flip and latents is not None:
            raise ConfigError(NO_FLIPS)
        self.files, self.index, self.seed, self.flip = files, index, seed, flip
        dtype = getattr(torch, files.manifest["precision"])
        self.rows = RowFiles.of(index, latents, dtype.itemsize, files.manifest["file_bytes"])
        self.dtype = dtype
        names = [name for name, *_ in self.rows.all()]
        missing = sum(name not in files.arrays for name in [*names, self.rows.name("keys")])
        if missing:
            raise DatasetError(
                f"{files.folder} is not finished, {missing:,} of {len(names):,} files are missing; "
                f"`caplab train --precompute` with the same settings goes on."
            )
        broken = [key for name in names for key in files.manifest[UNDECODABLE].get(name, ())]
        if broken:
            raise DatasetError(
                f"{len(broken):,} pictures in {files.folder} did not decode, such as that of "
                f"sample {broken[0]}; repair them (`caplab check`) and precompute again, or select "
                f"without them."
            )
        self._numbers = files.map(self.rows.name("keys")).numpy().view(np.uint64)

    def read(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """As `Pictures.read`; latents in the precision that they are stored in.

        Raises:
            DatasetError: the cache holds another sample in a row's place.
        """
        numbers, sizes = self.index.numbers(rows), self.index.sizes(rows)
        if not np.array_equal(self._numbers[rows], numbers):
            wrong = int(np.flatnonzero(self._numbers[rows] != numbers)[0])
            key = self.index.keys(rows[wrong : wrong + 1])[0]
            raise DatasetError(
                f"{self.files.folder} holds another sample in the place of {key}; delete it and "
                f"precompute again."
            )
        bucket = self.rows.bucket_of(int(rows[0]))
        own, count = self.rows.buckets[bucket], self.rows.rows[bucket]
        number, within = np.divmod(rows - own.start, count)
        x = torch.empty((len(rows), *self.rows.shapes[bucket]), dtype=self.dtype)
        for nth in np.unique(number).tolist():
            here = torch.from_numpy(np.flatnonzero(number == nth))
            stored = self.files.map(self.rows.name(self.rows.firsts[bucket] + nth))
            x[here] = stored[torch.from_numpy(within)[here]]
        if self.flip:
            mirrored = torch.from_numpy(hash_uniform(numbers, epochs, self.seed, FLIP) < 0.5)
            x[mirrored] = x[mirrored].flip(2)
        target = (own.height, own.width)
        corners = crop_corners(sizes, target, np.full(len(rows), 0.5))
        ids = np.concatenate([sizes, corners, np.tile(target, (len(rows), 1))], 1)
        return x, torch.from_numpy(ids.astype(np.float32))


NO_FLIPS = (
    "flip cannot be combined with cached latents: those of a mirrored picture are not the mirrored "
    "latents; leave flip out, or train without --precompute and with another --cache."
)


# ---- text ---------------------------------------------------------------------------------------


class CachedText:
    """Features of captions by the text itself.

    A file's texts stand in the order of their hashes, and so do the files of one precompute; those
    that a later one adds begin anew. So a look-up takes two bisections, and no list in memory.
    """

    def __init__(self, files: CacheFiles) -> None:
        self.files = files
        self.tokens: int = files.manifest["tokens"]
        self.width: int = files.manifest["width"]
        self.pooled_width: int = files.manifest["pooled_width"]
        self.dtype = getattr(torch, files.manifest["precision"])
        self._runs: list[tuple[list[bytes], list[str]]] = []
        self.refresh()

    def refresh(self) -> None:
        """Look at the manifest again, to which files were added."""
        self._runs = []
        last = b""
        for name, shard in sorted(self.files.manifest["shards"].items()):
            first = bytes.fromhex(shard["first"])
            if not self._runs or first < last:
                self._runs.append(([], []))
            self._runs[-1][0].append(first)
            self._runs[-1][1].append(name)
            last = bytes.fromhex(shard["last"])

    def find(self, digest: bytes) -> tuple[str, int] | None:
        """File and row of a text by its sha256; None = it is not there."""
        for firsts, names in self._runs:
            at = bisect_right(firsts, digest) - 1
            if at >= 0:
                hashes = self.files.map(f"{names[at]}.hashes").numpy()
                row = bisect_left(range(len(hashes)), digest, key=lambda n: hashes[n].tobytes())
                if row < len(hashes) and hashes[row].tobytes() == digest:
                    return names[at], row
        return None

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Sequence (B, T, D), mask (B, T) and pooled (B, P) as the encoder gave them, on the CPU.

        Places that the mask hides hold zeros.

        Raises:
            DatasetError: one of the texts was never encoded.
        """
        sequence = torch.zeros((len(texts), self.tokens, self.width), dtype=self.dtype)
        mask = torch.zeros((len(texts), self.tokens), dtype=self.dtype)
        pooled = torch.empty((len(texts), self.pooled_width), dtype=self.dtype)
        for place, text in enumerate(texts):
            found = self.find(hashlib.sha256(text.encode()).digest())
            if found is None:
                raise DatasetError(
                    f"{self.files.folder} holds no features of the caption {text[:80]!r}; `caplab "
                    f"train --precompute` with the same settings adds what is missing."
                )
            name, row = found
            ends = self.files.map(f"{name}.ends")
            start, stop = int(ends[row - 1]) if row else 0, int(ends[row])
            bits = np.unpackbits(self.files.map(f"{name}.mask")[row].numpy(), count=self.tokens)
            real = np.flatnonzero(bits)
            # Nearly always they stand in front, and one copy moves them.
            front = len(real) == 0 or int(real[-1]) == len(real) - 1
            where: Any = slice(len(real)) if front else torch.from_numpy(real)
            sequence[place, where] = self.files.map(f"{name}.sequence")[start:stop]
            mask[place, where] = 1
            if self.pooled_width:
                pooled[place] = self.files.map(f"{name}.pooled")[row]
        return TextFeatures(sequence, mask, pooled if self.pooled_width else None)


# ---- finding them -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What was precomputed for a run; None = it is read and encoded as it goes."""

    pictures: CachedPictures | None = None
    held_out: CachedPictures | None = None
    text: CachedText | None = None


def find_cache(
    folder: Path,
    index: TrainingIndex,
    held_out: TrainingIndex,
    settings: TrainSettings,
    latents: Latents | None = None,
    text: TextEncoder | None = None,
    rows: bool = True,
) -> Found:
    """The caches in `folder` that fit a run, opened.

    Args:
        latents: of the model; None where it works on pixels.
        text: of the model; None = no text features are wanted.
        rows: look for pictures or latents as well.

    Raises:
        ConfigError: latents that lie there are to be mirrored.
        DatasetError: a cache of this run's identity is unfinished, cut, or lacks captions that
            have come since.
    """
    pictures = apart = features = place = None
    kind = "pictures" if latents is None else "latents"
    # Identities hash weights, so none is made where there is nothing to look for.
    if rows and settings.crop == "center" and any(folder.glob(f"{kind}-*")):
        identity = rows_identity(index, held_out, latents)
        place = cache_folder(folder, kind, identity)
    if place is not None and place.exists():
        files = CacheFiles.open(place, identity)
        pictures = CachedPictures(files, index, latents, settings.seed, settings.flip)
        if latents is None:
            apart = CachedPictures(files, held_out)
    if text is not None and any(folder.glob("text-*")) and not why_no_text(settings, text):
        identity = text_identity(text)
        place = cache_folder(folder, "text", identity)
        if place.exists():
            files = CacheFiles.open(place, identity)
            if captions_of(index, held_out) not in files.manifest["covers"]:
                raise DatasetError(
                    f"{place} does not hold all captions of this run; `caplab train --precompute` "
                    f"with the same settings adds what is missing."
                )
            features = CachedText(files)
    return Found(pictures, apart, features)


def rows_identity(
    index: TrainingIndex, held_out: TrainingIndex, latents: Latents | None
) -> dict[str, Any]:
    """What cached pictures or latents hang on: not on captions, seeds or weights."""
    return {
        TRAINING: index.pictures_fingerprint,
        HELD_OUT: held_out.pictures_fingerprint,
        "crop": "center",
        "latents": None if latents is None else latents.identity(),
    }


def text_identity(text: TextEncoder) -> dict[str, Any]:
    """What cached text features hang on."""
    return {"text": text.identity()}


def why_no_text(settings: TrainSettings, text: TextEncoder) -> str:
    """Why features of text cannot be kept, in a sentence; "" where they can."""
    if text.trainable or settings.new_tokens:
        return "The text encoder is trained along, so its features are not precomputed."
    if settings.tag_shuffle:
        return "tag_shuffle makes new texts at every draw, so features are not precomputed."
    return ""


def captions_of(index: TrainingIndex, held_out: TrainingIndex) -> str:
    """A mark of all captions of an index and of what is held out from it."""
    return fingerprint([index.fingerprint, held_out.fingerprint, index.kinds])


def storage_dtype(config: ModelConfig) -> torch.dtype:
    """As precise as the autoencoder computes."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
        config.latents.precision
    ]
