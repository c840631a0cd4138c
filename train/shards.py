"""Training samples: pictures and captions of a selection, and the order in which they are seen."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.store.caption_blend import hash_uniform, key_numbers
from curate.store.captions import accepted_captions
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard

_ORDER_STREAM, _HOLD_OUT_STREAM = 4, 5


@dataclass(frozen=True)
class TrainingSamples:
    """N samples in memory, N * R * R * 3 bytes: 12 MB for 4,000 at 32 px, 1.2 GB for 100,000 at 64.

    keys: of the samples; images: (N, R, R, 3) uint8, sRGB; captions: kind -> the texts of each
    sample, none or more (there may be more kinds than a run uses; all enter the vocabulary, so
    that every arm has the same one).
    """

    keys: list[str]
    images: NDArray[np.uint8]
    captions: Mapping[str, Sequence[Sequence[str]]]

    def __post_init__(self) -> None:
        n = len(self.keys)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ConfigError(
                f"Training images must be uint8 (N, R, R, 3), not {self.images.dtype} "
                f"{self.images.shape}."
            )
        if self.images.shape[1] != self.images.shape[2]:
            raise ConfigError(f"Training images must be square, not {self.images.shape[1:3]}.")
        if len(set(self.keys)) != n:
            raise ConfigError("Training samples must have distinct keys.")
        for kind, texts in self.captions.items():
            if len(texts) != n or len(self.images) != n:
                raise ConfigError(f"{n} keys, {len(self.images)} images, {len(texts)} {kind} rows.")

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: NDArray[np.int64]) -> TrainingSamples:
        """The samples at `rows`."""
        captions = {
            kind: [texts[row] for row in rows.tolist()] for kind, texts in self.captions.items()
        }
        return TrainingSamples([self.keys[row] for row in rows], self.images[rows], captions)

    def hashes(self) -> dict[str, str]:
        """sha256 (16 hex digits) of keys, of images and of each kind of captions, in order."""
        parts = {
            "keys": "\0".join(self.keys).encode(),
            "images": np.ascontiguousarray(self.images).tobytes(),
        }
        for kind, texts in sorted(self.captions.items()):
            parts[f"captions/{kind}"] = repr([list(own) for own in texts]).encode()
        return {name: hashlib.sha256(part).hexdigest()[:16] for name, part in parts.items()}


def load_training_samples(
    dataset: Dataset,
    selection: str,
    kinds: Sequence[str],
    resolution: int,
    caption_sources: Mapping[str, str] | None = None,
) -> TrainingSamples:
    """Read a selection, sorted by key, with its pictures cropped and scaled to `resolution`.

    Shards are read one after the other and pictures decoded once; what stays in memory is the
    arrays of `TrainingSamples`.

    Args:
        kinds: kinds of captions to read; those beyond a run's blend only feed the vocabulary.
        caption_sources: kind -> who wrote it, where several captioners wrote that kind.

    Raises:
        ConfigError: no such captions, or it is not clear whose to take.
        DatasetError: no such selection, it is empty, or a shard or picture is missing.
    """
    keys = dataset.selection_keys(selection)
    if not keys:
        raise DatasetError(f"The selection {selection!r} is empty; there is nothing to train on.")
    row_of = {key: row for row, key in enumerate(keys)}
    captions = captions_of(dataset, keys, kinds, caption_sources)
    images = np.empty((len(keys), resolution, resolution, 3), np.uint8)
    missing = set(keys)
    for shard in dataset.shards():
        if missing and dataset.shard_path(shard).exists():
            for key, content, _ in iter_shard(dataset, shard):
                if key in missing:
                    images[row_of[key]] = _square(content, resolution, key)
                    missing.discard(key)
    if missing:
        raise DatasetError(
            f"{len(missing)} selected samples are in no shard (such as {min(missing)}); "
            f"`caplab check {dataset.directory}` says what repairs it."
        )
    return TrainingSamples(keys, images, captions)


def captions_of(
    dataset: Dataset,
    keys: Sequence[str],
    kinds: Sequence[str],
    caption_sources: Mapping[str, str] | None = None,
) -> dict[str, list[list[str]]]:
    """Kind -> the accepted texts of each key, none or more.

    Raises:
        ConfigError: no such captions, or it is not clear whose to take.
    """
    row_of = {key: row for row, key in enumerate(keys)}
    captions: dict[str, list[list[str]]] = {kind: [[] for _ in keys] for kind in kinds}
    table = accepted_captions(dataset, kinds, caption_sources)
    columns = (table.column(name).to_pylist() for name in ("key", "kind", "text"))
    for key, kind, text in zip(*columns, strict=True):
        row = row_of.get(key)
        if row is not None:
            captions[kind][row].append(text)
    return captions


def available_kinds(
    dataset: Dataset, caption_sources: Mapping[str, str] | None = None
) -> list[str]:
    """Caption kinds of which it is clear whose to take: one writer, or one is named."""
    writers: Counter[str] = Counter()
    connection = dataset.connect(["captions"])
    for source in dataset.caption_sources():
        kinds = connection.execute(
            f"SELECT DISTINCT kind FROM {dataset.scan('captions', source)} WHERE status = 'ok'"
        ).fetchall()
        writers.update(kind for (kind,) in kinds)
    return sorted(k for k, n in writers.items() if n == 1 or k in (caption_sources or {}))


def with_captions(samples: TrainingSamples, kinds: Sequence[str]) -> TrainingSamples:
    """The samples that have at least one caption of every kind in `kinds`."""
    rows = [
        row
        for row in range(len(samples))
        if all(samples.captions.get(kind) and samples.captions[kind][row] for kind in kinds)
    ]
    return samples.take(np.array(rows, np.int64))


def held_out(
    keys: Sequence[str], share: float, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which samples are kept from training, and which of those are looked at.

    A sample is held out where the hash of its key lies below `share`: by its key alone, so the
    same in every run, arm and seed, and in a selection that has grown since.

    Returns:
        (N,) bool, held out; and the rows of at most `count` of them, lowest hashes first. None
        are held out where `count` is 0.

    Raises:
        ConfigError: no sample would be held out, or none would be left.
    """
    u = hash_uniform(key_numbers(keys), 0, 0, _HOLD_OUT_STREAM)
    apart = (u < share) & (count > 0)
    if count and not apart.any():
        raise ConfigError(
            f"Of {len(keys)} samples none falls under validation_share = {share:g}; raise it, or "
            f"set validation_samples to 0."
        )
    if apart.all():
        raise ConfigError(f"All {len(keys)} samples would be held out; lower validation_share.")
    shown = np.flatnonzero(apart)
    return apart, shown[np.argsort(u[shown], kind="stable")][:count]


class DataOrder:
    """Which sample stands at which place of the stream; a fresh permutation every epoch.

    A function of (seed, place) alone: resuming in the middle of an epoch needs no state.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self._permutations: dict[int, NDArray[np.int64]] = {}

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows (B,) and epochs (B,) of the batch at `step` (from 0)."""
        place = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epoch = place // self.samples
        rows = np.empty(self.batch_size, np.int64)
        for number in np.unique(epoch).tolist():
            here = epoch == number
            rows[here] = self._permutation(number)[place[here] % self.samples]
        return rows, epoch

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._permutations:
            # A batch can touch several epochs of a tiny set; older ones are never needed again.
            for old in [number for number in self._permutations if number < epoch - 1]:
                del self._permutations[old]
            rng = np.random.default_rng([self.seed, _ORDER_STREAM, epoch])
            self._permutations[epoch] = rng.permutation(self.samples)
        return self._permutations[epoch]


def _square(content: bytes, resolution: int, key: str) -> NDArray[np.uint8]:
    """The picture's centre square at `resolution`, filtered with antialiasing."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            rgb = picture.convert("RGB")
    except OSError as error:
        raise DatasetError(f"The picture of sample {key} does not decode ({error}).") from error
    side = min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    box = (left, top, left + side, top + side)
    if (rgb.width, rgb.height) != (resolution, resolution):
        rgb = rgb.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)
    return np.asarray(rgb, np.uint8)
