"""Pictures for the caption benchmark, as a dataset: photographs of a folder, or generated ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.store.dataset import SAMPLES, Dataset, sample_key
from curate.store.shards import write_shard

ROWS_PER_SHARD = 1000
_SIZES = ((512, 384), (384, 512), (512, 512), (512, 288))


def pack_pictures(folders: Sequence[Path], count: int, work: Path) -> Dataset:
    """A dataset of `count` pictures of at most 512 px; generated ones where no folder is given.

    Raises:
        ConfigError: a folder has no captions.jsonl, or all of them hold fewer pictures.
    """
    if folders:
        from pipelines.bench.score_pairs import pack_pairs

        return pack_pairs(folders, count, work, ROWS_PER_SHARD).dataset
    dataset = Dataset.create(work / "dataset", {"list": "generated"}, {})
    for start in range(0, count, ROWS_PER_SHARD):
        shard = f"{start // ROWS_PER_SHARD:05d}"
        rows, members = [], []
        for number in range(start, min(count, start + ROWS_PER_SHARD)):
            url = f"http://generated.invalid/{number}.jpg"
            key = sample_key(url, None)
            members.append((key, {"jpg": generated(number), "txt": b"", "json": b"{}"}))
            row = {"key": key, "shard": shard, "row": number, "url": url, "status": "stored"}
            rows.append(row)
        write_shard(dataset.shard_path(shard), members)
        table = pa.Table.from_pylist(rows, schema=SAMPLES)
        dataset.input_path(shard).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.select(["url", "alt_text"]), dataset.input_path(shard))
        dataset.write_table("samples", table, shard)
    return dataset


def generated(number: int) -> bytes:
    """A JPEG of smooth colours under noise, about as large as a photograph of its size."""
    rng = np.random.default_rng(number)
    size = _SIZES[number % len(_SIZES)]
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.integers(-12, 13, (*smooth.shape[:2], 1), dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()
