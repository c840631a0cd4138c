"""A dataset of coloured pictures with captions of three kinds, made in a moment."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.store.contract import CAPTIONS, SAMPLES, conform
from curate.store.dataset import Dataset
from curate.store.shards import write_shard

COLOURS = ("red", "green", "blue")


def nulls(schema: pa.Schema, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table of `schema` with these columns; the others hold nothing."""
    count = len(next(iter(columns.values())))
    return pa.table(
        [
            pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in schema
        ],
        schema=schema,
    )


def picture(number: int, size: tuple[int, int], kind: str = "png") -> bytes:
    """A smooth picture (width, height) of its own."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x * 255 // size[0], y * 255 // size[1], (x + y + 40 * number) % 256], 2)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, {"jpg": "JPEG"}.get(kind, kind))
    return out.getvalue()


def make_dataset(
    folder: Path,
    count: int = 60,
    shards: int = 2,
    sizes: Sequence[tuple[int, int]] = ((24, 24),),
    kind: str = "png",
    pictures: bool = True,
    words: int = 1,
    tags: bool = False,
) -> Dataset:
    """`count` samples, each third of one colour; two descriptive captions each; selection "all"."""
    dataset = Dataset.create(folder, {"count": count}, {})
    keys = [f"k{number:06d}" for number in range(count)]
    for shard, numbers in enumerate(np.array_split(np.arange(count), shards)):
        name, own = f"{shard:05d}", numbers.tolist()
        dataset.input_path(name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"key": [keys[n] for n in own]}), dataset.input_path(name))
        size = [sizes[n % len(sizes)] for n in own]
        if pictures:
            members = (
                (keys[n], {kind: picture(n, size_, kind), "txt": b"alt", "json": b"{}"})
                for n, size_ in zip(own, size, strict=True)
            )
            write_shard(dataset.shard_path(name), members)
        columns = {
            "key": [keys[n] for n in own],
            "shard": [name] * len(own),
            "row": own,
            "status": ["stored"] * len(own),
            "width": [s[0] for s in size],
            "height": [s[1] for s in size],
            "format": [kind] * len(own),
            "sha256": [f"{n:064x}" for n in own],
        }
        dataset.write_table("samples", nulls(SAMPLES, columns), name)
        for source, texts in {
            "vlm": [
                ("descriptive", 0, "a plain {} square" + " so" * (words - 1)),
                ("descriptive", 1, "everything is {}"),
                ("short", 0, "{}"),
            ],
            "alt": [("alt", 0, "IMG_{n}.jpg")],
            **({"tagger": [("tags", 0, "a, b c,d")]} if tags else {}),
        }.items():
            rows = [
                (keys[n], kind_, index, text.format(COLOURS[n % 3], n=n), "ok")
                for n in own
                for kind_, index, text in texts
            ]
            columns = dict(
                zip(
                    ("key", "kind", "sample_index", "text", "status"),
                    zip(*rows, strict=True),
                    strict=True,
                )
            )
            dataset.write_table("captions", nulls(CAPTIONS, columns), name, source)
    select(dataset, "all", keys)
    return dataset


def add_captions(dataset: Dataset, source: str, kind: str, texts: Mapping[str, str | None]) -> None:
    """Captions of one kind by one source: key -> text; None = looked at and rejected."""
    for shard in dataset.shards():
        samples = set(dataset.read_table("samples", shard).column("key").to_pylist())
        keys = sorted(samples.intersection(texts))
        columns = {
            "key": keys,
            "kind": [kind] * len(keys),
            "sample_index": [0] * len(keys),
            "text": [texts[key] for key in keys],
            "status": ["rejected" if texts[key] is None else "ok" for key in keys],
        }
        dataset.write_table("captions", nulls(CAPTIONS, columns), shard, source)


def select(
    dataset: Dataset, name: str, keys: Sequence[str], weights: Sequence[float] | None = None
) -> None:
    """Store a selection, with weights as `caplab select --balance` writes them."""
    dataset.write_selection(name, pa.array(sorted(keys), pa.string()), {})
    if weights is not None:
        table = pa.table(
            {"key": pa.array(keys, pa.string()), "weight": pa.array(weights, pa.float64())}
        )
        pq.write_table(table, dataset.selection_path(name))


def add_scores(dataset: Dataset, **scores: Mapping[str, float | None]) -> None:
    """Score columns: key -> value."""
    for shard in dataset.shards():
        keys = dataset.read_table("samples", shard).column("key").to_pylist()
        columns = {
            name: pa.array([values.get(key) for key in keys], pa.float32())
            for name, values in scores.items()
        }
        dataset.write_table("scores", conform("scores", pa.table({"key": keys, **columns})), shard)
