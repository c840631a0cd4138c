"""What a duplicate search reads of a dataset: fingerprints into arrays, embeddings into a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.arrow_columns import bytes_to_numpy, key_array, to_numpy
from curate.base.errors import ConfigError, DatasetError
from curate.duplicates.candidates.neighbours import Pairs
from curate.duplicates.candidates.vectors import ArrayVectors, FileVectors, Vectors
from curate.duplicates.verify.thumbnails import Thumbnails
from curate.pictures.copy_descriptor import WIDTH
from curate.pictures.perceptual_hashes import THUMBNAIL, VIEWS, unpacked
from curate.store.dataset import Dataset
from curate.store.finite import FINITE
from curate.store.sample_view import sample_view

_BLOCK = 4096
FLAT = 3.0
"""Standard deviation (of 8-bit levels) over the thumbnail below which a picture is flat."""


@dataclass(frozen=True)
class Samples:
    """N samples in order of quality, the best first: a row's number is its rank."""

    keys: NDArray[np.bytes_]
    """(N,) S32."""
    sha256: NDArray[np.uint64]
    """(N, 2): the first 128 bits, zeros for none."""
    pixel_sha256: NDArray[np.uint64]
    phash: NDArray[np.uint64]
    """(N, views)."""
    descriptor: NDArray[np.float16]
    """(N, 64), see curate.pictures.copy_descriptor."""
    structured: NDArray[np.bool_]
    """Decoded and not flat: fit for everything but exact matching."""
    thumbnails: Thumbnails

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Found:
    """Pairs of rows (first < second) and their distance."""

    pairs: Pairs
    distance: NDArray[np.float32]
    crowded: int = 0
    """Samples of whose candidates only the likeliest were looked at."""


def load_samples(parts: Sequence[tuple[Dataset, NDArray[np.bytes_]]], scratch: Path) -> Samples:
    """Fingerprints of samples, in the order of their keys, read shard by shard.

    Args:
        parts: datasets and the keys (N,) wanted of each; the rows of one follow those of another.
        scratch: folder for thumbnails that are asked for.
    """
    total = sum(len(keys) for _, keys in parts)
    shards = [(dataset, name) for dataset, _ in parts for name in dataset.shards()]
    shard, place = np.zeros(total, np.int32), np.zeros(total, np.int32)
    samples = Samples(
        keys=np.concatenate([keys for _, keys in parts]),
        sha256=np.zeros((total, 2), np.uint64),
        pixel_sha256=np.zeros((total, 2), np.uint64),
        phash=np.zeros((total, len(VIEWS)), np.uint64),
        descriptor=np.zeros((total, WIDTH), np.float16),
        structured=np.zeros(total, bool),
        thumbnails=Thumbnails(shard, place, lambda number: _thumbnails(*shards[number]), scratch),
    )
    first, number = 0, 0
    for dataset, keys in parts:
        order = np.argsort(keys)
        for name in dataset.shards():
            if len(keys) and dataset.has_shard("fingerprints", name):
                rows, places = _fill(samples, dataset, name, keys, order, first)
                shard[rows], place[rows] = number, places
            number += 1
        first += len(keys)
    return samples


def _fill(
    samples: Samples,
    dataset: Dataset,
    name: str,
    keys: NDArray[np.bytes_],
    order: NDArray[np.int64],
    first: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read one shard into the rows from `first` on; return these rows and their places in it."""

    def rows_of(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        some = key_array(table.column("key"))
        at = np.searchsorted(keys, some, sorter=order).clip(max=len(keys) - 1)
        mine = np.flatnonzero(keys[order[at]] == some)
        return mine, first + order[at[mine]]

    table = dataset.read_table("samples", name, columns=["key", "sha256"])
    mine, rows = rows_of(table)
    samples.sha256[rows] = digests(table.column("sha256"))[mine]
    table = dataset.read_table("fingerprints", name)
    mine, rows = rows_of(table)
    thumbnail, decoded = bytes_to_numpy(table.column("thumbnail"), (THUMBNAIL,))
    samples.pixel_sha256[rows] = digests(table.column("pixel_sha256"))[mine]
    samples.phash[rows] = _hashes(table.column("phash"))[mine]
    samples.descriptor[rows] = descriptors(table)[mine]
    samples.structured[rows] = (decoded & is_structured(thumbnail))[mine]
    return rows, mine


def ranked_keys(dataset: Dataset, quality: Sequence[str]) -> NDArray[np.bytes_]:
    """(N,) keys of all stored samples, the best first."""
    import duckdb

    if not dataset.has_table("fingerprints"):
        raise DatasetError(
            f"{dataset.directory} has no fingerprints yet; finish `caplab curate` on it first."
        )
    order = ", ".join([*(f"{FINITE}({part}) DESC NULLS LAST" for part in quality), "key"])
    with sample_view(dataset) as connection:
        try:
            table = connection.sql(f"SELECT key FROM sample ORDER BY {order}").to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(
                f"The quality {', '.join(quality)} does not work: {str(error).splitlines()[0]}"
            ) from error
    return key_array(table.column("key"))


def _thumbnails(dataset: Dataset, shard: str) -> NDArray[np.uint8]:
    table = dataset.read_table("fingerprints", shard, columns=["key", "thumbnail"])
    return bytes_to_numpy(table.column("thumbnail"), (THUMBNAIL,))[0]


def descriptors(table: pa.Table) -> NDArray[np.float16]:
    """(B, 64) copy descriptors of a fingerprints shard, zeros where there is none.

    Raises:
        DatasetError: an older version wrote the shard.
    """
    if "descriptor" not in table.column_names:
        raise DatasetError(
            "These fingerprints were written before there were copy descriptors; run `caplab "
            "curate` on the same input and directory again, which computes only what is missing."
        )
    found = np.zeros((table.num_rows, WIDTH), np.float16)
    stored = to_numpy(table.column("descriptor"))
    if stored.shape[1]:
        found[:] = np.nan_to_num(stored)
    return found


def digests(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """(N, 2): the first 128 bits of hex sha256s, zeros for null; two never collide by chance."""
    array = column.combine_chunks()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    out = np.zeros((len(array), 2), np.uint64)
    text = "".join(value[:32] for value in array.drop_null().to_pylist())
    out[valid] = np.frombuffer(bytes.fromhex(text), np.uint64).reshape(-1, 2)
    return out


def is_structured(thumbnail: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(B,) whether light, or the colour that varies most, varies over the picture at all."""
    found = np.empty(len(thumbnail), bool)
    for start in range(0, len(thumbnail), 1024):
        luma, colour = unpacked(thumbnail[start : start + 1024])
        spread = np.maximum(luma.std(axis=(1, 2)), colour.std(axis=(2, 3)).max(axis=1))
        found[start : start + 1024] = spread > FLAT
    return found


def _hashes(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    array = column.combine_chunks()
    out = np.zeros((len(array), len(VIEWS)), np.uint64)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    out[valid] = array.flatten().to_numpy().reshape(-1, len(VIEWS))
    return out


def write_embeddings(
    dataset: Dataset, all_keys: NDArray[np.bytes_], chosen: NDArray[np.int64], scratch: Path
) -> tuple[Vectors, NDArray[np.int64]]:
    """Unit image embeddings of those of the chosen rows that have one, and these rows.

    They go shard by shard into a scratch file in the order of the rows, 2 D bytes each.
    """
    order = np.argsort(all_keys[chosen])
    keys = all_keys[chosen][order]
    path = scratch / "embeddings.f16"
    present = np.zeros(len(chosen), bool)
    width = 0
    with open(path, "wb") as file:
        for shard in dataset.shards() if len(chosen) else []:
            if not dataset.has_shard("embeddings", shard):
                continue
            table = dataset.read_table("embeddings", shard, columns=["key", "image"])
            table = table.filter(table.column("image").is_valid())
            some = key_array(table.column("key"))
            at = np.searchsorted(keys, some).clip(max=len(keys) - 1)
            mine = np.flatnonzero(keys[at] == some)
            if not len(mine):
                continue
            flat = table.column("image").combine_chunks().flatten().to_numpy()
            parts = flat.reshape(table.num_rows, -1)[mine].astype(np.float16, copy=False)
            width = width or parts.shape[1]
            if parts.shape[1] != width:
                raise DatasetError(
                    f"Shard {shard} of {dataset.directory} has embeddings of {parts.shape[1]} "
                    f"numbers, others have {width}; score it again with the same CLIP model."
                )
            rows = order[at[mine]]
            present[rows] = True
            for place in np.argsort(rows):
                os.pwrite(file.fileno(), parts[place].tobytes(), int(rows[place]) * 2 * width)
        file.truncate(len(chosen) * 2 * width)
    if not width:
        return ArrayVectors(np.empty((0, 1), np.float16)), np.empty(0, np.int64)
    return FileVectors(path, width, np.flatnonzero(present)), chosen[present]


def similarity(descriptor: NDArray[np.float16], pairs: Pairs) -> NDArray[np.float32]:
    """Cosine of the copy descriptors of each pair: (P,)."""
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        first, second = descriptor[pairs[start : start + _BLOCK]].astype(np.float32).swapaxes(0, 1)
        found[start : start + _BLOCK] = np.einsum("pd,pd->p", first, second)
    return found
