"""Fingerprints of a folder of reference pictures, computed once and kept beside the dataset.

They lie as a small dataset of their own, tables alone and no pictures, in DIR/references/NAME: a
row a file with its path as the URL, "stored" where it decodes and "failed" with the decoder's words
where it does not. The unit of work is a shard of 1,000 files in sorted order; one whose files have
the same paths, sizes and times as before is not read again, so a killed run continues and a folder
that grew costs what is new in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.base.arrow_columns import to_arrow
from curate.base.errors import ConfigError
from curate.base.files import atomic_path, fingerprint
from curate.base.progress import advance, counted, progress
from curate.base.reasons import Reason
from curate.intake.folders import is_picture
from curate.intake.locations import Store, locate
from curate.pictures.decode import PictureBatch, PictureView, decode_batches
from curate.scoring.scorers.image_basics import Fingerprint
from curate.store.contract import FAILED, FINGERPRINTS, SAMPLES, STORED, sample_key
from curate.store.dataset import Dataset

_FILES = 1000
_BATCH = 64
_STATE = b"caplab_files"
_COLUMNS = {
    "pixel_sha256": "pixel_hash",
    "phash": "phash",
    "descriptor": "copy_descriptor",
    "thumbnail": "thumbnail",
}


def fingerprint_folder(place: str, directory: Path) -> Dataset:
    """Fingerprint every picture below `place`, as far as that was not done before.

    Args:
        place: a folder or a glob, local or remote, as `caplab curate` takes them.
        directory: where the fingerprints lie.

    Raises:
        ConfigError: nothing is there, or no picture.
        DatasetError: `directory` holds the fingerprints of another folder.
    """
    found = locate(place)
    paths = [path for path in found.files or found.store.walk() if is_picture(path)]
    if not paths:
        raise ConfigError(f"{place} holds no pictures (jpg, png, webp and the like).")
    scorer = Fingerprint()
    scorer.open()
    dataset = Dataset.create(directory, {"references": found.store.show()}, {})
    names = []
    with progress(len(paths), "references", "picture") as bar:
        for number, start in enumerate(range(0, len(paths), _FILES)):
            some = paths[start : start + _FILES]
            names.append(f"{number:05d}")
            with counted(bar.update):
                _shard(dataset, names[-1], found.store, some, scorer)
            bar.update(start + len(some) - bar.n)  # where they were there
    for left in set(dataset.shards()) - set(names):
        for path in (
            dataset.input_path(left),
            dataset.table_path("samples", left),
            dataset.table_path("fingerprints", left),
        ):
            path.unlink(missing_ok=True)
    return dataset


def _shard(
    dataset: Dataset, shard: str, store: Store, paths: list[str], scorer: Fingerprint
) -> None:
    state = fingerprint([scorer.signature(), [[path, *store.state(path)] for path in paths]])
    if dataset.has_shard("samples", shard):
        notes = pq.read_schema(dataset.table_path("samples", shard)).metadata or {}
        if notes.get(_STATE) == state.encode():
            return
    rows: list[dict[str, Any]] = []
    parts: dict[str, list[pa.Array]] = {name: [] for name in FINGERPRINTS.names}
    kinds = dict(zip(FINGERPRINTS.names, FINGERPRINTS.types, strict=True))
    read = _read(store, paths, rows, shard)
    for batch in decode_batches(read, PictureView(1), _BATCH):
        advance(len(batch.keys))
        columns = scorer.score({"canvas": batch.canvas, "pixel_sha256": batch.pixel_sha256})
        good = batch.decoded
        parts["key"].append(pa.array(np.array(batch.keys)[good], pa.string()))
        for name, column in _COLUMNS.items():
            kind = kinds[name] if name != "pixel_sha256" else None
            values = to_arrow(columns[column], None, kind)
            parts[name].append(values.filter(pa.array(good)))
        _note(rows, batch)
    chunks = {name: pa.chunked_array(found, kinds[name]) for name, found in parts.items()}
    # The samples table says that the shard is done, so it comes last.
    path = dataset.input_path(shard)
    with atomic_path(path) as temporary:
        pq.write_table(pa.table({"url": paths}), temporary)
    dataset.write_table("fingerprints", pa.table(chunks), shard)
    samples = pa.Table.from_pylist(rows, schema=SAMPLES.with_metadata({_STATE: state.encode()}))
    dataset.write_table("samples", samples, shard)


def _read(
    store: Store, paths: list[str], rows: list[dict[str, Any]], shard: str
) -> Iterator[tuple[str, bytes]]:
    """(key, bytes) of every file; leaves a row of the samples table for each in `rows`."""
    for path in paths:
        problem, raw = None, b""
        try:
            with store.open(path) as stream:
                raw = stream.read()
        except OSError as error:
            problem = str(error)[:300]
        key = sample_key(path, None)
        rows.append(
            dict.fromkeys(SAMPLES.names)
            | {
                "key": key,
                "shard": shard,
                "row": len(rows),
                "url": path,
                "status": STORED,
                "sha256": hashlib.sha256(raw).hexdigest() if raw else None,
                "original_bytes": len(raw),
                "detail": problem,
            }
        )
        yield key, raw


def _note(rows: list[dict[str, Any]], batch: PictureBatch) -> None:
    """Mark the rows whose pictures do not decode."""
    by_key = {row["key"]: row for row in islice(rows, max(0, len(rows) - 4 * _BATCH), None)}
    for key, error in zip(batch.keys, batch.error, strict=True):
        if error is not None:
            row = by_key[key]
            row |= {"status": FAILED, "reason": str(Reason.NOT_AN_IMAGE)}
            row["detail"] = row["detail"] or error


def paths_of(dataset: Dataset) -> dict[str, str]:
    """Key -> path of every file of a fingerprinted folder."""
    out: dict[str, str] = {}
    for shard in dataset.shards():
        table = dataset.read_table("samples", shard, columns=["key", "url"])
        out |= zip(table.column("key").to_pylist(), table.column("url").to_pylist(), strict=True)
    return out


def fingerprinted_keys(dataset: Dataset) -> NDArray[np.bytes_]:
    """(N,) keys of all samples with fingerprints, sorted."""
    parts = [np.empty(0, "S32")]
    for shard in dataset.shards():
        if dataset.has_shard("fingerprints", shard):
            table = dataset.read_table("fingerprints", shard, columns=["key"])
            parts.append(table.column("key").to_numpy(zero_copy_only=False).astype("S32"))
    return np.sort(np.concatenate(parts))
