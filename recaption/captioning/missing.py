"""What is still to be captioned, as columns: a row a picture, with the captions it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from recaption.captioning.drafts import Pending
from recaption.measure.similarity import Embedding

WORK = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("alt_text", pa.string()),
        ("picture", pa.large_binary()),  # as it lies in the shard; null where it is not there
        ("kinds", pa.list_(pa.string())),  # of the captions that the picture lacks,
        ("sample_indices", pa.list_(pa.int32())),  # pairwise
        ("prompt_values", pa.string()),  # JSON of the prompt's columns
        ("image_embedding", pa.list_(pa.float32())),  # null where nothing is compared
    ]
)
"""Columns that travel to whoever runs the captioner."""


@dataclass
class WorkRows:
    """Rows of WORK, gathered one by one."""

    shard: str
    captions: int = 0
    columns: dict[str, list[Any]] = field(default_factory=lambda: {n: [] for n in WORK.names})

    def add(
        self,
        key: str,
        picture: bytes | None,
        alt_text: str | None,
        slots: Sequence[tuple[str, int]],
        prompt_values: Mapping[str, str],
        embedding: Embedding | None,
    ) -> None:
        """Append a picture and the (kind, sample index) of each caption that it lacks."""
        row = (
            self.shard,
            key,
            alt_text,
            picture,
            [kind for kind, _ in slots],
            [index for _, index in slots],
            json.dumps(dict(prompt_values), ensure_ascii=False),
            embedding,
        )
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        self.captions += len(slots)

    def table(self) -> pa.Table:
        """The rows so far."""
        return pa.table(self.columns, schema=WORK)


def iter_pending(work: pa.Table, kinds: Sequence[str]) -> Iterator[tuple[str, Pending, Pending]]:
    """(kind, captions with a picture, captions whose picture is not in its shard), kind by kind."""
    rows = work.to_pylist()
    values = [json.loads(row["prompt_values"]) for row in rows]
    embeddings = [
        None if row["image_embedding"] is None else np.array(row["image_embedding"], np.float32)
        for row in rows
    ]
    for kind in kinds:
        there, lost = Pending(), Pending()
        for row, value, embedding in zip(rows, values, embeddings, strict=True):
            for wanted, index in zip(row["kinds"], row["sample_indices"], strict=True):
                if wanted == kind:
                    picture = row["picture"]
                    (there if picture is not None else lost).add(
                        row["key"], index, picture or b"", row["alt_text"], value, embedding
                    )
        yield kind, there, lost
