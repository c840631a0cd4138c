"""Datasets that the trainer is measured on: packed pictures with texts, or a million tiny ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.store.contract import CAPTIONS, SAMPLES
from curate.store.dataset import Dataset
from curate.store.shards import write_shard
from pipelines.bench.common.packed_pictures import pack_pictures
from recaption.captioning.alt_texts import AltCaptionStage

SELECTION, KIND = "all", "alt"
ROWS_PER_SHARD = 10_000


def captioned(folders: Sequence[Path], count: int, work: Path) -> Dataset:
    """`count` pictures of at most 512 px with a text each; generated ones without folders.

    Raises:
        ConfigError: as `pack_pairs`.
    """
    dataset = pack_pictures(folders, count, work)
    stage = AltCaptionStage()
    stage.open()
    for shard in dataset.shards():
        stage.run(dataset, shard)
    connection = dataset.connect(["samples"])
    rows = connection.execute("SELECT key FROM samples WHERE status = 'stored' ORDER BY key")
    dataset.write_selection(SELECTION, pa.array([key for (key,) in rows.fetchall()]), {})
    return dataset


def repeated(
    folder: Path,
    count: int,
    pictures: Sequence[bytes],
    size: tuple[int, int],
    text: Callable[[int], str],
    kind: str = "png",
) -> Dataset:
    """`count` samples that share a few encoded `pictures` of `size` (width, height)."""
    dataset = Dataset.create(folder, {"count": count, "size": size}, {})
    for number, start in enumerate(range(0, count, ROWS_PER_SHARD)):
        name, rows = f"{number:05d}", range(start, min(start + ROWS_PER_SHARD, count))
        keys = [f"{row:032x}" for row in rows]
        dataset.input_path(name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"key": keys}), dataset.input_path(name))
        members = ((key, {kind: pictures[n % len(pictures)]}) for n, key in enumerate(keys))
        write_shard(dataset.shard_path(name), members)
        own = len(keys)
        samples: dict[str, list[Any]] = {
            "key": keys,
            "shard": [name] * own,
            "row": list(rows),
            "status": ["stored"] * own,
            "width": [size[0]] * own,
            "height": [size[1]] * own,
            "format": [kind] * own,
            "sha256": [key * 2 for key in keys],
        }
        dataset.write_table("samples", _whole(SAMPLES, samples), name)
        captions: dict[str, list[Any]] = {
            "key": keys,
            "kind": [KIND] * own,
            "sample_index": [0] * own,
            "text": [text(row) for row in rows],
            "status": ["ok"] * own,
        }
        dataset.write_table("captions", _whole(CAPTIONS, captions), name, KIND)
    keys = [f"{row:032x}" for row in range(count)]
    dataset.write_selection(SELECTION, pa.array(keys), {})
    return dataset


def _whole(schema: pa.Schema, columns: Mapping[str, list[Any]]) -> pa.Table:
    """A table of `schema` with these columns; the others hold nothing."""
    count = len(columns["key"])
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
