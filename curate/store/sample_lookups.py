"""Columns of a rule that cost a join of their own, made only where a rule names them.

    text_count                    how many stored samples of the dataset have this alt text, in any
                                  case; 1 where nobody else has it, null without a text
    image_embedding, text_embedding   of the main CLIP model, as lists of FLOAT;
                                  image_embedding_LABEL of a further one
    KIND_clip_similarity, KIND_clip_sentence_min, ...   of the captions of each scored kind
                                  (curate.scoring.captions)

They are computed from the tables as they are when the rule runs, so samples that came later count.
`text_count` groups 8-byte hashes and keeps only those that recur: memory grows with the number of
different recurring texts, and DuckDB spills beyond its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from curate.store.captions import SCORED_CAPTION
from curate.store.dataset import Dataset
from curate.store.finite import finite, finite_columns
from curate.store.scans import sql_name

if TYPE_CHECKING:
    import duckdb

TEXT_COUNT = "text_count"
_REPEATED = (
    "(SELECT text_hash, count(*) AS n FROM scores WHERE text_hash IS NOT NULL "
    "GROUP BY text_hash HAVING count(*) > 1)"
)


@dataclass(frozen=True)
class Lookup:
    """A column: `value` is its SQL, `join` what it needs behind FROM, `table` where it lies."""

    value: str
    join: str
    table: str


def lookups(
    dataset: Dataset, connection: duckdb.DuckDBPyConnection, scores: Sequence[str]
) -> dict[str, Lookup]:
    """Column -> how to join it, for what this dataset has.

    Args:
        connection: with the views of samples and scores.
        scores: columns of the scores table.
    """
    found: dict[str, Lookup] = {}
    if "text_hash" in scores:
        found[TEXT_COUNT] = Lookup(
            "CASE WHEN scores.text_hash IS NOT NULL THEN coalesce(_texts.n, 1) END",
            f"LEFT JOIN {_REPEATED} _texts ON _texts.text_hash = scores.text_hash",
            "scores",
        )
    if files := dataset.table_files("embeddings"):
        join = (
            f"LEFT JOIN {dataset.scan('embeddings', union_by_name=True)} _embeddings "
            "ON _embeddings.key = scores.key"
        )
        for name in pq.read_schema(files[0]).names:
            kind, _, label = name.partition("_")
            if kind in ("image", "text"):
                column = "_".join(filter(None, (kind, "embedding", label)))
                value = finite(f"_embeddings.{sql_name(name)}", "FLOAT[]")
                found[column] = Lookup(value, join, "embeddings")
    if dataset.has_table("caption_scores"):
        source = dataset.scan("caption_scores", union_by_name=True)
        columns = finite_columns(connection, source)
        connection.execute(
            f"CREATE OR REPLACE VIEW caption_scores AS SELECT {columns} FROM {source}"
        )
        sql, names = caption_columns(connection)
        join = f"LEFT JOIN ({sql}) _captions ON _captions.key = scores.key"
        for name in names:
            found[name] = Lookup(f"_captions.{sql_name(name)}", join, "caption_scores")
    return found


def caption_columns(connection: duckdb.DuckDBPyConnection) -> tuple[str, list[str]]:
    """SQL of one row a sample with the scores of each caption kind, and the columns behind `key`.

    Columns are KIND_clip_similarity, KIND_clip_sentence_min and so on: the mean over the kind's
    captions, the least of the `_min`, the greatest of the `_max` and of the truncated tokens.
    `connection` has the dataset's views (Dataset.connect).
    """
    kinds = connection.execute("SELECT DISTINCT kind FROM caption_scores ORDER BY 1").fetchall()
    described = connection.execute("DESCRIBE caption_scores").fetchall()
    names = [row[0] for row in described if row[0] not in SCORED_CAPTION]
    parts, columns = ["key"], []
    for (kind,) in kinds:
        literal = str(kind).replace("'", "''")
        for name in names:
            columns.append(f"{kind}_{name}")
            alias = sql_name(columns[-1])
            parts.append(f"{_over(name)}({name}) FILTER (kind = '{literal}') AS {alias}")
    return f"SELECT {', '.join(parts)} FROM caption_scores GROUP BY key", columns


def _over(name: str) -> str:
    if "_min" in name:
        return "min"
    return "max" if "_max" in name or "_truncated" in name else "avg"
