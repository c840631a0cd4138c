"""What can be said of a caption set before anything is trained on it: length, similarity, truth."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from curate.store.dataset import Dataset
from pipelines.world.caption_truth import WorldTruth
from recaption.captioning.ask import OK
from recaption.judging.caption_sets import CaptionSet, add_view

STATEMENTS = ("object", "attribute", "relation", "background", "whole", "main")
"""Kinds of statement of `caption_truth`."""

CAPTION_SCORES = pa.schema(
    [
        ("source", pa.string()),
        ("kind", pa.string()),
        ("captions", pa.int64()),
        ("words", pa.float64()),  # a caption
        ("clip_similarity", pa.float64()),  # mean of those that are scored; null where none is
        *(
            (f"{kind}_{side}", pa.float64())
            for kind in STATEMENTS
            for side in ("precision", "recall")
        ),
    ]
)
"""Precision and recall are pooled over all captions; null where nothing was stated."""


def caption_scores(
    dataset: Dataset, truth: WorldTruth, sets: Sequence[CaptionSet], keys: Sequence[str] = ()
) -> pa.Table:
    """A row a set, in the schema CAPTION_SCORES, over every accepted caption of it.

    A picture with several captions (a set of random lengths) counts with each. About 10,000
    captions a second.

    Args:
        keys: only of these pictures, such as those that were trained on; all where none is named.
    """
    connection = duckdb.connect()
    known = set(truth.scenes) & set(keys or truth.scenes)
    connection.register("known", pa.table({"key": pa.array(sorted(known), pa.string())}))
    rows = []
    for one in sets:
        add_view(connection, dataset, one.source, "captions", scored=True)
        found = connection.execute(
            "SELECT key, text, words, clip_similarity FROM captions JOIN known USING (key) "
            "WHERE kind = ? AND status = ? ORDER BY key, sample_index",
            [one.kind, OK],
        ).to_arrow_table()
        rows.append({"source": one.source, "kind": one.kind, **_scores(found, truth)})
    return pa.Table.from_pylist(rows, schema=CAPTION_SCORES)


def _scores(captions: pa.Table, truth: WorldTruth) -> dict[str, float | None]:
    means = {
        name: captions.column(name).cast(pa.float64()).combine_chunks()
        for name in ("words", "clip_similarity")
    }
    scores: dict[str, float | None] = {
        "captions": captions.num_rows,
        **{name: pc.mean(column).as_py() for name, column in means.items()},
    }
    if captions.num_rows:
        columns = (captions.column(name).to_pylist() for name in ("key", "text"))
        tallies = truth.judge(*columns).tallies
        for kind in STATEMENTS:
            one = tallies[kind]
            for side, part, of in (
                ("precision", one.right, one.stated),
                ("recall", one.found, one.there),
            ):
                scores[f"{kind}_{side}"] = float(part.sum() / of.sum()) if of.sum() else None
    return scores
