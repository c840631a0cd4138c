"""The batches that negCLIPLoss compares with: drawn once from a dataset, and kept beside it.

The paper divides the dataset K times into batches. Here K batches are drawn, and each sample stands
in each of them in the place of one that was drawn: every sample is compared with as many others,
drawn as evenly, and all of them with the same ones. So a shard is scored alone, in one pass, and
its numbers hang on no other shard's.

A sample is drawn by a hash of its key, so that shards, workers and the order of rows change
nothing. A dataset that grows keeps its batches, and what was scored stays as it is, until it has
twice as many samples as when they were drawn: then they are drawn again, and all is scored again.
So what was added later is measured by the same yardstick, which is never far from what there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.base.arrow_columns import key_array, to_numpy
from curate.base.errors import DatasetError
from curate.base.files import atomic_path, sha256_file
from curate.scoring.whole.targets import Vectors
from curate.store.dataset import Dataset

FILE = "neg_clip_loss.safetensors"
_NOTE = "caption_lab"

Keys = NDArray[np.bytes_]


def kept_batches(dataset: Dataset, size: int, divisions: int, embeddings: str) -> tuple[Path, str]:
    """The file of a dataset's batches and its sha256; drawn now where there is none that will do.

    Cost of a draw: one pass over keys, and one over the embeddings of the shards that hold a drawn
    sample. Memory: divisions * size keys and float16 vectors (1 GB for 10 times 32,768 of 768).

    Args:
        size: samples a batch, or all where there are fewer; then one division is enough.
        divisions: batches.
        embeddings: the mark of what made the embeddings.

    Raises:
        DatasetError: no sample has an embedding of both its picture and its text.
    """
    path = dataset.directory / FILE
    count = sum(len(keys) for _, keys in _paired(dataset))
    if not count:
        raise DatasetError(
            f"{dataset.directory} has no sample with both a picture and a text to compare."
        )
    wanted = {"size": size, "divisions": divisions, "embeddings": embeddings}
    known = _note_of(path)
    if {name: known.get(name) for name in wanted} != wanted or count >= 2 * int(known["samples"]):
        _write(path, dataset, min(size, count), 1 if count <= size else divisions, wanted, count)
    return path, sha256_file(path)


class Batches:
    """Batches that were kept, read one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[tuple[Keys, Vectors, Vectors]]:
        """Keys (B,) S32 and unit vectors of pictures and texts, (B, D) each, of each batch."""
        from safetensors import safe_open

        with safe_open(str(self._path), framework="np") as opened:
            divisions = len(opened.get_slice("keys")[:, 0, 0])
            for division in range(divisions):
                keys = np.ascontiguousarray(opened.get_slice("keys")[division])
                image, text = (
                    opened.get_slice(name)[division].astype(np.float32)
                    for name in ("image", "text")
                )
                yield keys.view("S32")[:, 0], image, text


def places(keys: Keys, batch: Keys) -> NDArray[np.int64]:
    """Where each sample stands in a batch: at its own place if it was drawn, else at the last."""
    order = np.argsort(batch)
    found = np.searchsorted(batch, keys, sorter=order).clip(max=len(batch) - 1)
    at = order[found]
    return np.where(batch[at] == keys, at, len(batch) - 1).astype(np.int64)


def drawing(keys: Keys, division: int) -> NDArray[np.uint64]:
    """An even 64-bit number of each key; those with the smallest are drawn.

    splitmix64 (Steele, Lea and Flood 2014) over the four words of a key.
    """
    words = np.ascontiguousarray(keys).view(np.uint64).reshape(len(keys), 4)
    state = np.full(len(keys), division, np.uint64)
    with np.errstate(over="ignore"):
        for column in range(4):
            state = (state ^ words[:, column]) + np.uint64(0x9E3779B97F4A7C15)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
            state ^= state >> np.uint64(31)
    return state


def _paired(dataset: Dataset) -> Iterator[tuple[str, Keys]]:
    """Shard, and the keys of its samples with a picture and a text: those with a similarity."""
    for shard in dataset.shards():
        if dataset.has_shard("scores", shard):
            table = dataset.read_table("scores", shard, columns=["key", "clip_similarity"])
            known = table.filter(pc.is_valid(table.column("clip_similarity")))
            yield shard, key_array(known.column("key"))


def _write(
    path: Path, dataset: Dataset, size: int, divisions: int, wanted: dict[str, object], count: int
) -> None:
    import torch
    from safetensors.torch import save_file

    drawn = _drawn(dataset, size, divisions)
    vectors: dict[str, NDArray[np.float16]] = {}
    flat = drawn.reshape(-1)
    order = np.argsort(flat, kind="stable")
    for shard, keys in _paired(dataset):
        mine = np.isin(keys, flat)
        if not mine.any():
            continue
        table = dataset.read_table("embeddings", shard, columns=["key", "image", "text"])
        held = key_array(table.column("key"))
        rows = np.flatnonzero(np.isin(held, keys[mine]))
        lo = np.searchsorted(flat, held[rows], "left", sorter=order)
        hi = np.searchsorted(flat, held[rows], "right", sorter=order)
        target = np.concatenate([order[a:b] for a, b in zip(lo, hi, strict=True)])
        source = np.repeat(rows, hi - lo)
        for name in ("image", "text"):
            values = to_numpy(table.column(name))
            if name not in vectors:
                vectors[name] = np.zeros((len(flat), values.shape[1]), np.float16)
            vectors[name][target] = values[source].astype(np.float16)
    if not vectors or not all(np.any(value, axis=1).all() for value in vectors.values()):
        raise DatasetError(
            f"The embeddings of {dataset.directory} lack samples that have a similarity; run "
            f"`caplab check {dataset.directory}`."
        )
    tensors = {
        name: torch.from_numpy(value.reshape(divisions, size, -1))
        for name, value in vectors.items()
    }
    letters = np.ascontiguousarray(drawn).view(np.uint8).reshape(divisions, size, 32)
    tensors["keys"] = torch.from_numpy(letters.copy())
    note = json.dumps({**wanted, "samples": count}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_NOTE: note})


def _drawn(dataset: Dataset, size: int, divisions: int) -> Keys:
    """(divisions, size) keys, those of the smallest `drawing` of each, smallest first."""
    best = [np.zeros(0, "S32")] * divisions
    for _, keys in _paired(dataset):
        for division in range(divisions):
            both = np.concatenate([best[division], keys])
            kept = np.argsort(drawing(both, division), kind="stable")[:size]
            best[division] = both[kept]
    return np.stack(best)


def _note_of(path: Path) -> dict[str, int | str]:
    """What is known of kept batches; of a file that is not there, that it rests on no sample.

    Raises:
        DatasetError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return {"samples": 0}
    try:
        with safe_open(str(path), framework="np") as opened:
            note: dict[str, int | str] = json.loads((opened.metadata() or {})[_NOTE])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} is damaged; delete it: it is drawn again.") from error
    return note
