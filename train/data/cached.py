"""Pictures, latents and text features that were computed once, mapped into memory.

    CACHE/pictures-ID/training-00000 ...   x uint8 (n, H, W, 3), and the keys' numbers (n,)
    CACHE/latents-ID/training-00000 ...    x (n, C, h, w), as precise as they are computed
    CACHE/text-ID/00000 ...                features by the sha256 of the caption's text

Pictures and latents stand in the order of the training index, a file for so many rows of one
bucket, held-out pictures in files of their own; arithmetic says where a row lies, and its key's
number whether it is that row. Text features have no order of samples: a caption has the same in
every dataset, arm and seed. `train.data.cache` writes all of it.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint
from curate.base.telling.words import amount
from curate.store.caption_blend import hash_uniform
from train.data.cache_files import CacheFiles
from train.data.pictures import FLIP, crop_corners
from train.data.rows import Bucket, TrainingIndex
from train.protocols import Latents, TextEncoder, TextFeatures
from train.settings import TrainSettings, seed_of

# ---- pictures and latents -----------------------------------------------------------------------


@dataclass(frozen=True)
class RowFile:
    """Rows [start, stop) of an index, all of one bucket, in a file of their own."""

    name: str
    bucket: Bucket
    start: int
    stop: int
    shape: tuple[int, ...]
    """Of one picture (H, W, 3), or of its latents (C, h, w)."""


def row_files(
    index: TrainingIndex, latents: Latents | None, itemsize: int, file_bytes: int
) -> list[RowFile]:
    """The files of an index, in the order of its rows, of about `file_bytes` each."""
    files: list[RowFile] = []
    for bucket in index.buckets:
        shape: tuple[int, ...] = (bucket.height, bucket.width, 3)
        if latents is not None:
            factor = latents.factor
            shape = (latents.channels, bucket.height // factor, bucket.width // factor)
        rows = max(file_bytes // (math.prod(shape) * itemsize), 1)
        for start in range(bucket.start, bucket.stop, rows):
            name = f"{index.part}-{len(files):05d}"
            files.append(RowFile(name, bucket, start, min(start + rows, bucket.stop), shape))
    return files


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
        self.dtype: torch.dtype = getattr(torch, files.manifest["precision"])
        size = files.manifest["file_bytes"]
        self.rows = row_files(index, latents, self.dtype.itemsize, size)
        self._starts = np.array([file.start for file in self.rows])
        missing = sum(file.name not in files.notes for file in self.rows)
        if missing:
            raise DatasetError(
                f"{files.folder} is not finished, {missing:,} of {amount(len(self.rows), 'file')} "
                f"missing; `caplab train --precompute` with the same settings goes on."
            )
        broken = [key for file in self.rows for key in files.notes[file.name]["undecodable"]]
        if broken:
            raise DatasetError(
                f"{amount(len(broken), 'picture')} in {files.folder} did not decode, such as "
                f"that of sample {broken[0]}; repair them (`caplab check`) and "
                f"precompute again, or select without them."
            )

    def read(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """As `Pictures.read`; latents in the precision that they are stored in.

        Raises:
            DatasetError: the cache holds another sample in a row's place.
        """
        numbers, sizes = self.index.numbers(rows), self.index.sizes(rows)
        which = np.searchsorted(self._starts, rows, "right") - 1
        first = self.rows[which[0]]
        x = torch.empty((len(rows), *first.shape), dtype=self.dtype)
        for nth in np.unique(which).tolist():
            file = self.rows[nth]
            stored = self.files.map(file.name)
            here = np.flatnonzero(which == nth)
            within = torch.from_numpy(rows[here] - file.start)
            wrong = here[stored["numbers"][within].numpy().view(np.uint64) != numbers[here]]
            if len(wrong):
                raise DatasetError(
                    f"{self.files.folder} holds another sample in the place of "
                    f"{self.index.keys(rows[wrong[:1]])[0]}; delete it and precompute again."
                )
            x[torch.from_numpy(here)] = stored["x"][within]
        if self.flip:
            mirrored = torch.from_numpy(hash_uniform(numbers, epochs, self.seed, FLIP) < 0.5)
            x[mirrored] = x[mirrored].flip(2)
        target = (first.bucket.height, first.bucket.width)
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
        self.dtype: torch.dtype = getattr(torch, files.manifest["precision"])
        self._runs: list[tuple[list[bytes], list[str]]] = []
        last = b""
        for name, note in sorted(files.notes.items()):
            first = bytes.fromhex(note["first"])
            if not self._runs or first < last:
                self._runs.append(([], []))
            self._runs[-1][0].append(first)
            self._runs[-1][1].append(name)
            last = bytes.fromhex(note["last"])

    def find(self, digest: bytes) -> tuple[str, int] | None:
        """File and row of a text by its sha256; None = it is not there."""
        for firsts, names in self._runs:
            at = bisect_right(firsts, digest) - 1
            if at >= 0:
                hashes = self.files.map(names[at])["hashes"].numpy()
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
            stored, row = self.files.map(found[0]), found[1]
            start, stop = int(stored["ends"][row - 1]) if row else 0, int(stored["ends"][row])
            bits = np.unpackbits(stored["mask"][row].numpy(), count=self.tokens)
            real = np.flatnonzero(bits)
            # Nearly always they stand in front, and one copy moves them.
            front = len(real) == 0 or int(real[-1]) == len(real) - 1
            where: Any = slice(len(real)) if front else torch.from_numpy(real)
            sequence[place, where] = stored["sequence"][start:stop]
            mask[place, where] = 1
            if self.pooled_width:
                pooled[place] = stored["pooled"][row]
        return TextFeatures(sequence, mask, pooled if self.pooled_width else None)

    def refuse_missing(self, texts: Iterable[str]) -> None:
        """Raise DatasetError where one of the texts was never encoded."""
        for text in texts:
            if self.find(hashlib.sha256(text.encode()).digest()) is None:
                raise DatasetError(
                    f"{self.files.folder} does not hold all captions of this run, such as "
                    f"{text[:80]!r}; `caplab train --precompute` with the same settings adds what "
                    f"is missing."
                )


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
    pictures = apart = features = None
    kind = kind_of(latents)
    # Identities hash weights, so none is made where there is nothing to look for.
    if rows and settings.crop == "center" and any(folder.glob(f"{kind}-*")):
        files = CacheFiles.open(folder, kind, rows_identity(index, held_out, latents))
        if files is not None:
            pictures = CachedPictures(
                files, index, latents, seed_of(settings, "data"), settings.flip
            )
            apart = CachedPictures(files, held_out) if latents is None else None
    if text is not None and any(folder.glob("text-*")) and not why_no_text(settings, text):
        files = CacheFiles.open(folder, "text", text_identity(text))
        if files is not None:
            features = CachedText(files)
            if captions_of(index, held_out) not in files.manifest["covers"]:
                features.refuse_missing(chain([""], index.texts(list(settings.captions))))
    return Found(pictures, apart, features)


def kind_of(latents: Latents | None) -> str:
    """What is kept of pictures."""
    return "pictures" if latents is None else "latents"


def rows_identity(
    index: TrainingIndex, held_out: TrainingIndex, latents: Latents | None
) -> dict[str, Any]:
    """What cached pictures or latents hang on: not on captions, seeds or weights."""
    return {
        index.part: index.pictures_fingerprint,
        held_out.part: held_out.pictures_fingerprint,
        "crop": "center",
        "latents": None if latents is None else latents.identity(),
    }


def text_identity(text: TextEncoder) -> dict[str, Any]:
    """What cached text features hang on."""
    return {"text": text.identity()}


def why_no_text(settings: TrainSettings, text: TextEncoder) -> str:
    """Why features of text cannot be kept, in a sentence; "" where they can."""
    # Adapters leave every encoder as it is, also one that its preset would train.
    if (text.trainable and not settings.lora_rank) or settings.new_tokens:
        return "The text encoder is trained along, so its features are not precomputed."
    if settings.tag_shuffle:
        return "tag_shuffle makes new texts at every draw, so features are not precomputed."
    return ""


def captions_of(index: TrainingIndex, held_out: TrainingIndex) -> str:
    """A mark of all captions of an index and of what is held out from it."""
    return fingerprint([index.fingerprint, held_out.fingerprint, index.kinds])
