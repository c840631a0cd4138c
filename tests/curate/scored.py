"""A small dataset of tables alone, from rows written out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.store.contract import DUPLICATE_PAIRS, EMBEDDINGS, SAMPLES
from curate.store.dataset import Dataset
from tests.curate.tiny import write_input

Row = dict[str, Any]


def make_scored(
    directory: Path,
    rows: list[Row],
    pairs: list[tuple[str, str, str]] = (),  # type: ignore[assignment]
    clip: tuple[str, str] = ("ViT-L-14-quickgelu", "openai"),
) -> Dataset:
    """One stored sample a row: columns of `samples` go there, all others are scores.

    Args:
        pairs: (method, key, key) of duplicate search.
        clip: model and tag that the dataset says it was scored with.
    """
    settings = {"clip_model": clip[0], "clip_pretrained": clip[1]}
    dataset = Dataset.create(directory, {"made": "by a test"}, {"settings": settings})
    samples, scores, vectors = [], [], []
    for number, row in enumerate(rows):
        sample = dict.fromkeys(SAMPLES.names) | {"shard": "00000", "row": number}
        sample |= {"status": "stored", "url": f"http://x.example/{row['key']}.jpg"}
        sample |= {name: value for name, value in row.items() if name in SAMPLES.names}
        samples.append(sample)
        others = {n: v for n, v in row.items() if n not in SAMPLES.names and n != "image"}
        scores.append({"key": row["key"], **others})
        vectors.append({"key": row["key"], "image": row.get("image"), "text": None})
    dataset.write_table("samples", pa.Table.from_pylist(samples, SAMPLES), "00000")
    dataset.write_table("scores", pa.Table.from_pylist(scores), "00000")
    columns = [pa.array([v["key"] for v in vectors])]
    columns += [
        pa.array([None if v[n] is None else np.asarray(v[n], np.float16) for v in vectors],
                 EMBEDDINGS.field(n).type)
        for n in ("image", "text")
    ]  # fmt: skip
    table = pa.table(columns, schema=EMBEDDINGS)
    dataset.write_table("embeddings", table, "00000")
    write_input(dataset, "00000", pa.Table.from_pylist(samples, SAMPLES))
    found = [
        {"method": method, "key_a": min(a, b), "key_b": max(a, b), "distance": 0.0}
        for method, a, b in pairs
    ]
    dataset.write_table("duplicate_pairs", pa.Table.from_pylist(found, DUPLICATE_PAIRS))
    return dataset
