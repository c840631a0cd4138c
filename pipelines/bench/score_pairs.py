"""Real pairs for the scoring benchmark: the same bytes as our dataset and as the peers' inputs.

Pictures and texts come from folders with `captions.jsonl` (see pipelines.bench.serve_pairs), go
through our own download over loopback HTTP once, and lie in shards of 512 px JPEGs as any list from
the web would, but for their texts, which are cleaned first. clip-retrieval reads those very tars
(img2dataset's layout); Data-Juicer reads one JSONL with the same JPEGs as files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.files import atomic_path
from curate.download.settings import DownloadSettings
from curate.download.stage import DownloadStage
from curate.intake.read import plan_shards
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.serve_pairs import write_url_list
from pipelines.world.serve import serve


@dataclass(frozen=True)
class Pairs:
    """Pairs on disk, once as our dataset and once as Data-Juicer's JSONL."""

    dataset: Dataset
    jsonl: Path
    keys: tuple[str, ...]
    """Keys in the order of shards and tars."""
    texts: tuple[str, ...]

    @property
    def tars(self) -> list[Path]:
        """The WebDataset shards, in order."""
        return [self.dataset.shard_path(shard) for shard in self.dataset.shards()]


def pack_pairs(folders: Sequence[Path], limit: int, work: Path, rows_per_shard: int) -> Pairs:
    """Download `limit` pairs with a text, evenly spread over the folders, and lay them out.

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
    return _lay_out(dataset, work / "files")


def _choose(listed: Path, limit: int, out: Path) -> None:
    rows = pq.read_table(listed)
    texts = rows.column("alt_text").to_pylist()
    filled = [row for row, text in enumerate(texts) if text is not None and text.strip()]
    if len(filled) < limit:
        raise ConfigError(f"The folders hold {len(filled)} pairs with a text, fewer than {limit}.")
    chosen = [filled[number * len(filled) // limit] for number in range(limit)]
    table = rows.take(pa.array(chosen))
    place = table.schema.get_field_index("alt_text")
    texts = pa.array([_clean(texts[row]) for row in chosen], pa.string())
    with atomic_path(out) as temporary:
        pq.write_table(table.set_column(place, "alt_text", texts), temporary)


def _clean(text: str) -> str:
    """As open_clip's tokenizer cleans a text (ftfy, HTML entities, white space).

    transformers' tokenizer for the same CLIP does not, so on raw texts Data-Juicer would compute
    another function; on clean ones all three see the same tokens.
    """
    from open_clip.tokenizer import basic_clean, whitespace_clean

    return str(whitespace_clean(basic_clean(text)))


def _lay_out(dataset: Dataset, folder: Path) -> Pairs:
    """Each picture as a file of its own, and the JSONL that names them."""
    folder.mkdir(exist_ok=True)
    keys, texts, lines = [], [], []
    for shard in dataset.shards():
        for key, image, text in iter_shard(dataset, shard):
            path = folder / f"{key}.jpg"
            path.write_bytes(image)
            keys.append(key)
            texts.append(text)
            # Data-Juicer marks a picture's place in the text by this token.
            record = {"key": key, "text": f"<__dj__image> {text}", "images": [str(path)]}
            lines.append(json.dumps(record, ensure_ascii=False))
    jsonl = folder / "pairs.jsonl"
    jsonl.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Pairs(dataset, jsonl, tuple(keys), tuple(texts))
