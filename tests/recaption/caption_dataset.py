"""A small dataset directory to caption: shards of pictures with alt texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tiny_captioners import picture

from curate.store.contract import CAPTIONS_VOLATILE, SAMPLES, sample_key
from curate.store.dataset import Dataset
from curate.store.shards import write_shard

BROKEN = b"GIF89a and then nothing that makes sense"


def make_dataset(
    directory: Path, shards: int = 2, per_shard: int = 6, broken: tuple[int, ...] = ()
) -> Dataset:
    """Shards of stored pictures and one failed row each; rows in `broken` hold a damaged file."""
    dataset = Dataset.create(directory, {"list": "test"}, {})
    row = 0
    for number in range(shards):
        shard = f"{number:05d}"
        rows, members = [], []
        for place in range(per_shard + 1):
            stored = place < per_shard
            alt_text = None if row % 5 == 4 else f"alt text of row {row}"
            key = sample_key(f"http://pictures.test/{row}.png", alt_text)
            if stored:
                content = BROKEN if row in broken else picture(row, (40 + 4 * (row % 3), 40))
                text = (alt_text or "").encode()
                members.append((key, {"png": content, "txt": text, "json": b"{}"}))
            rows.append(
                {
                    "key": key,
                    "shard": shard,
                    "row": row,
                    "url": f"http://pictures.test/{row}.png",
                    "alt_text": alt_text,
                    "status": "stored" if stored else "failed",
                    "reason": None if stored else "http_404",
                }
            )
            row += 1
        table = pa.Table.from_pylist(rows, schema=SAMPLES)
        dataset.input_path(shard).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.select(["url", "alt_text"]), dataset.input_path(shard))
        write_shard(dataset.shard_path(shard), members)
        dataset.write_table("samples", table, shard)
    return dataset


def stored_keys(dataset: Dataset) -> list[str]:
    """Keys of all stored samples."""
    keys = []
    for shard in dataset.shards():
        samples = dataset.read_table("samples", shard).to_pylist()
        keys += [sample["key"] for sample in samples if sample["status"] == "stored"]
    return keys


def captions(dataset: Dataset, shard: str, source: str) -> pa.Table:
    """A shard's captions without the columns in which two equal runs differ."""
    return dataset.read_table("captions", shard, source).drop_columns(list(CAPTIONS_VOLATILE))
