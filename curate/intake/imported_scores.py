"""Scores that came with the input, as columns of the scores table: `imported_punsafe` and the like.

They stand beside the computed ones and are selected on in the same way, as in
`--where "imported_punsafe < 0.1 and clip_similarity >= 0.28"`. The prefix keeps LAION's
`similarity` (of another CLIP) apart from our `clip_similarity`.
"""

from __future__ import annotations

import json
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.arrow_columns import finite_or_null, readable, to_python
from curate.base.column_marks import note, noted, noted_in
from curate.base.files import fingerprint
from curate.intake.column_types import score_numbers
from curate.intake.lists.record import read_intake
from curate.store.dataset import Dataset
from curate.store.stage import Stage

_VERSION = 2


class ImportScoresStage(Stage):
    """Copies the input's score columns into the scores table, shard by shard.

    Numbers stay numbers and texts stay texts (LAION's NSFW says UNLIKELY), but texts that are all
    numbers become such; NaN and infinities become null, nested columns JSON. Nothing is decoded and
    no model is loaded.
    """

    name: ClassVar[str] = "import"
    needs = ("samples", "scores")
    adds: ClassVar[tuple[str, ...]] = ("scores",)

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the scores table holds every imported column, from this input."""
        if not dataset.has_shard("scores", shard):
            return False
        marks = noted_in(dataset.table_path("scores", shard))
        return all(marks.get(name) == mark for name, mark in _wanted(dataset, shard).items())

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Add the columns of one shard; returns {"imported": values that are not null}."""
        intake = read_intake(dataset, shard)
        imported = intake.imported if intake else {}
        numbers = intake.number_texts if intake else []
        scores = dataset.read_table("scores", shard)
        marks = {**noted(scores.schema), **_wanted(dataset, shard)}
        with pq.ParquetFile(dataset.input_path(shard)) as parquet:
            given = parquet.read(columns=["key", *imported])
        order = pc.index_in(scores.column("key"), value_set=given.column("key").combine_chunks())
        given = given.take(order)
        count = 0
        for column, name in imported.items():
            values = _plain(given.column(column), column in numbers)
            count += len(values) - values.null_count
            if name in scores.column_names:
                scores = scores.drop_columns([name])
            scores = scores.append_column(name, values)
        metadata = {**(scores.schema.metadata or {}), **note(marks)}
        dataset.write_table("scores", scores.replace_schema_metadata(metadata), shard)
        return {"imported": count}


def forget_imported(dataset: Dataset, shard: str) -> None:
    """Take the imported columns out of a shard's scores, so that the stage adds them anew.

    For a shard that gained samples: the new ones would have nulls where the input has values.
    """
    if not dataset.has_shard("scores", shard):
        return
    scores = dataset.read_table("scores", shard)
    wanted, marks = _wanted(dataset, shard), noted(scores.schema)
    known = [name for name in scores.column_names if name in wanted]
    if not known:
        return
    left = {name: mark for name, mark in marks.items() if name not in wanted}
    metadata = {**(scores.schema.metadata or {}), **note(left)}
    rest = scores.drop_columns(known).replace_schema_metadata(metadata)
    dataset.write_table("scores", rest, shard)


def _wanted(dataset: Dataset, shard: str) -> dict[str, str]:
    """Imported column -> what it was made of, in the manner of the scorers' signatures."""
    intake = read_intake(dataset, shard)
    imported = intake.imported if intake else {}
    return {name: fingerprint(["imported", column, _VERSION]) for column, name in imported.items()}


def _plain(column: pa.ChunkedArray, number: bool) -> pa.ChunkedArray:
    """Finite numbers, booleans or text; `number`: its texts are numbers."""
    kind = column.type
    if number and pa.types.is_string(kind):
        return pa.chunked_array([pa.array(score_numbers(column.to_pylist()), pa.float64())])
    if pa.types.is_nested(kind):
        texts = [None if v is None else json.dumps(v, default=readable) for v in to_python(column)]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_decimal(column.type) or pa.types.is_float16(column.type):
        column = column.cast(pa.float64())
    return finite_or_null(column)
