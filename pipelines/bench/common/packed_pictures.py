"""Datasets of pictures for benchmarks: photographs of folders, or generated ones.

Photographs and texts come from folders with `captions.jsonl` (see pipelines.bench.common.
serve_pairs) and go through our own download over loopback HTTP once, so they lie in shards of
512 px JPEGs as any list from the web would, but for their texts, which are cleaned first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.files import atomic_path
from curate.download.settings import DownloadSettings
from curate.download.stage import DownloadStage
from curate.intake.read import plan_shards
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.common.serve_pairs import write_url_list
from pipelines.world.serve import serve

ROWS_PER_SHARD = 1000
_SIZES = ((512, 384), (384, 512), (512, 512), (512, 288))


def pack_pairs(
    folders: Sequence[Path], limit: int, work: Path, rows_per_shard: int = ROWS_PER_SHARD
) -> Dataset:
    """Download `limit` pairs with a text, evenly spread over the folders.

    Raises:
        ConfigError: a folder has no captions.jsonl, or all of them hold fewer pairs.
    """
    places = [folder.resolve() for folder in folders]
    root = Path(os.path.commonpath(places))
    urls = work / "urls.parquet"
    work.mkdir(parents=True, exist_ok=True)
    settings = DownloadSettings(allow_private_addresses=True, threads=4)
    with serve(root) as base_url:
        write_url_list(places, base_url, root, work / "all.parquet")
        _choose(work / "all.parquet", limit, urls)
        dataset = Dataset.create(work / "dataset", settings.identity(), {})
        plan_shards(urls, dataset, rows_per_shard=rows_per_shard)
        stage = DownloadStage(settings)
        stage.open()
        for shard in dataset.shards():
            if not stage.is_done(dataset, shard):
                stage.run(dataset, shard)
    return dataset


def _choose(listed: Path, limit: int, out: Path) -> None:
    """Write `limit` rows with a text, cleaned as open_clip's tokenizer cleans it.

    transformers' tokenizer for the same CLIP does not clean, so on raw texts Data-Juicer would
    compute another function; on clean ones all scorers see the same tokens.
    """
    from open_clip.tokenizer import basic_clean, whitespace_clean

    rows = [row for row in pq.read_table(listed).to_pylist() if (row["alt_text"] or "").strip()]
    if len(rows) < limit:
        raise ConfigError(f"The folders hold {len(rows)} pairs with a text, fewer than {limit}.")
    chosen = [rows[number * len(rows) // limit] for number in range(limit)]
    for row in chosen:
        row["alt_text"] = whitespace_clean(basic_clean(row["alt_text"]))
    with atomic_path(out) as temporary:
        pq.write_table(pa.Table.from_pylist(chosen), temporary)


def pack_pictures(folders: Sequence[Path], count: int, work: Path) -> Dataset:
    """`count` pictures of at most 512 px; generated ones where no folder is given.

    Raises:
        ConfigError: as `pack_pairs`.
    """
    if not folders:
        folders = [work / "generated"]
        folders[0].mkdir(parents=True, exist_ok=True)
        lines = []
        for number in range(count):
            _generated(number).save(folders[0] / f"{number}.jpg", quality=90)
            lines.append(json.dumps({"image": f"{number}.jpg", "alt": f"picture {number}"}))
        (folders[0] / "captions.jsonl").write_text("\n".join(lines))
    return pack_pairs(folders, count, work)


def pictures_of(dataset: Dataset) -> list[bytes]:
    """All encoded pictures, in the order of shards and tars."""
    return [image for shard in dataset.shards() for _, image, _ in iter_shard(dataset, shard)]


def repeated(pictures: Sequence[bytes], count: int) -> list[bytes]:
    """`count` pictures, from the first again where they are fewer."""
    return [pictures[number % len(pictures)] for number in range(count)]


def _generated(number: int) -> Image.Image:
    """Smooth colours under noise; as a JPEG about as large as a photograph of its size."""
    rng = np.random.default_rng(number)
    size = _SIZES[number % len(_SIZES)]
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.integers(-12, 13, (*smooth.shape[:2], 1), dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
