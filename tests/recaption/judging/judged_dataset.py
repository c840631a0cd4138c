"""A dataset of tables alone: samples with URLs, and captions by several sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.store.contract import CAPTIONS, SAMPLES, sample_key
from curate.store.dataset import Dataset


def make_dataset(directory: Path, count: int, host: str = "http://pictures.test") -> Dataset:
    """`count` stored samples of one shard, named HOST/0.jpg and so on."""
    dataset = Dataset.create(directory, {"list": "test"}, {})
    rows = []
    for row in range(count):
        url = f"{host}/{row}.jpg"
        rows.append(
            {"key": sample_key(url, None), "shard": "00000", "row": row, "url": url}
            | {"status": "stored"}
        )
    dataset.input_path("00000").parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, SAMPLES)
    pq.write_table(table.select(["url"]), dataset.input_path("00000"))
    dataset.write_table("samples", table, "00000")
    return dataset


def keys_of(dataset: Dataset) -> list[str]:
    """Keys by row."""
    found: list[str] = dataset.read_table("samples", "00000").column("key").to_pylist()
    return found


def write_captions(
    dataset: Dataset,
    source: str,
    kinds: Mapping[str, Mapping[int, str | None]],
    more: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Captions by row; None is a rejected one. `more` are further rows, `row` in place of key."""
    keys = keys_of(dataset)
    rows = [
        {"row": row, "kind": kind, "text": text}
        for kind, texts in kinds.items()
        for row, text in texts.items()
    ]
    table = []
    for given in (*rows, *more):
        text = given.get("text")
        caption = dict.fromkeys(CAPTIONS.names) | {
            "sample_index": 0,
            "status": "rejected" if text is None else "ok",
            "reason": "loop" if text is None else None,
            "flags": ["loop"] if text is None else [],
            "attempts": 2 if text is None else 1,
            "words": None if text is None else len(text.split()),
            "engine": "none" if source == "alt" else "transformers",
        }
        caption |= {name: value for name, value in given.items() if name != "row"}
        table.append(caption | {"key": keys[given["row"]]})
    dataset.write_table("captions", pa.Table.from_pylist(table, CAPTIONS), "00000", source)
