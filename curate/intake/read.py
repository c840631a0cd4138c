"""The first step: an input becomes numbered shards of rows, each with its stable key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, plain_path, read_json
from curate.base.progress import progress
from curate.intake.column_types import ColumnTypes, score_numbers
from curate.intake.columns import score_columns
from curate.intake.inspection import inspect_input
from curate.intake.left_out import LeftOut
from curate.intake.lists.record import (
    Intake,
    files_record,
    find_same,
    place_of,
    record_path,
    write_intake,
)
from curate.intake.rows import IDENTITY, own_names
from curate.intake.settings import InputFormat
from curate.intake.source import Source
from curate.store.claims import empty_directory
from curate.store.contract import sample_key
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan
from curate.store.write_samples import ALT_TEXTS, FAILURE, SOURCE_FILE

DEFAULT_ROWS_PER_SHARD = 10_000
MEMORY_LIMIT = "2GB"


def plan_shards(
    source: Source | Path | str,
    dataset: Dataset,
    url_column: str | None = None,
    text_column: str | None = None,
    rows_per_shard: int = DEFAULT_ROWS_PER_SHARD,
    input_format: InputFormat | None = None,
) -> Intake:
    """Cut an input into `dataset.input_path(shard)` files, in the input's order.

    Each file holds the columns key, row (number in the input, from 0), url, alt_text, failure and
    failure_detail (why a row came in broken), alt_texts (all texts of a row that came with
    several, its alt_text first; null for others), for pictures that are here already where they lie
    (source_file, source_key, source_offset, source_bytes), and every other column of the input
    under its own name ("input_NAME" where that would hide one of ours). Rows of the same identity
    and text are told apart by their occurrence (`sample_key`). The same input gives the same
    files. `input/left_out.jsonl` names the files that are no rows, if there are any.
    `input/input.json` comes last and says that all are there; with it, a second call does
    nothing. The input is read once; then the keys are compared and the few shards that hold
    repeated ones are written again. Memory is one shard of rows and the repeated keys.

    Args:
        source: the input, or what `inspect_input` said of it.

    Raises:
        ConfigError: the input is missing, unreadable, empty or lacks a column; nothing is written.
        DatasetError: the dataset was made from another input, or the input changed since.
    """
    if not isinstance(source, Source):
        source = inspect_input(source, url_column, text_column, input_format)
    if record_path(dataset).exists():
        if (same := find_same(dataset, source)) is None:
            raise DatasetError(
                f"{dataset.directory} was made from another version of its input; --extend takes "
                f"in the rows that are new, or choose another --out for this one."
            )
        return finished(same, dataset, source)
    for leftover in (dataset.directory / "input").glob("*.parquet"):
        leftover.unlink()
    types = source.column_types()
    shards, counts, left_out = _write_shards(source, dataset, rows_per_shard, types)
    columns: list[str] = list(source.columns)
    if types is not None:
        _settle_types(dataset, types)
        columns = list(types.types())
    _tell_repeated_apart(dataset, rows_per_shard)
    imported = _imported(columns, source)
    intake = Intake(
        shards=shards,
        rows_per_shard=rows_per_shard,
        format=source.format,
        local=source.local,
        scheme=source.store.scheme,
        root=source.store.root,
        url_column=source.url_column,
        text_column=source.text_column,
        image_column=source.image_column,
        imported=imported,
        number_texts=_number_texts(dataset, imported, dataset.shards()),
        columns=columns,
        left_out=dict(left_out.counts),
        left_out_names=left_out.names(),
        given=place_of(source.given),
        encoding=source.encoding,
        import_columns=list(source.import_columns),
        **counts.fields(),
    )
    write_intake(dataset, intake, files_record(source))
    return intake


@dataclass
class Counts:
    """What is counted of the rows of a list."""

    rows: int = 0
    without_text: int = 0
    captions: int = 0
    captioned: int = 0
    broken: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        """Count the rows of a shard of `plan_shards`."""
        self.rows += table.num_rows
        self.broken.update(table.column(FAILURE).drop_null().to_pylist())
        unbroken = table.filter(table.column(FAILURE).is_null())
        texts = unbroken.column("alt_text")
        several = unbroken.column(ALT_TEXTS)
        alone = len(texts) - texts.null_count - (len(several) - several.null_count)
        self.without_text += texts.null_count
        self.captioned += len(texts) - texts.null_count
        self.captions += alone + (pc.sum(pc.list_value_length(several)).as_py() or 0)

    def fields(self) -> dict[str, Any]:
        """As `Intake` has them."""
        several = self.captions > self.captioned
        return {
            "rows": self.rows,
            "without_text": self.without_text,
            "broken": dict(self.broken.most_common()),
            "captions": self.captions if several else None,
            "captioned": self.captioned if several else None,
        }


def _write_shards(
    source: Source, dataset: Dataset, rows_per_shard: int, types: ColumnTypes | None
) -> tuple[int, Counts, LeftOut]:
    counts = Counts()
    shards = 0
    names = dataset.directory / "input" / "left_out.jsonl"
    with atomic_path(names) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        left_out = LeftOut(file)
        with progress(None, "reading the input", "row") as bar:
            for table in _shard_tables(source, rows_per_shard, types, left_out):
                with atomic_path(dataset.input_path(f"{shards:05d}")) as temporary:
                    pq.write_table(table, temporary, compression="zstd")
                shards += 1
                counts.add(table)
                bar.update(table.num_rows)
    if not left_out.counts:
        names.unlink()
    return shards, counts, left_out


def _shard_tables(
    source: Source, rows_per_shard: int, types: ColumnTypes | None, left_out: LeftOut
) -> Iterator[pa.Table]:
    def keyed() -> Iterator[pa.Table]:
        row = 0
        for batch in source.batches(min(rows_per_shard, DEFAULT_ROWS_PER_SHARD), types, left_out):
            yield _keyed(batch, row, source.namespace)
            row += batch.num_rows

    return cut(keyed(), rows_per_shard)


def cut(tables: Iterable[pa.Table], rows_per_shard: int) -> Iterator[pa.Table]:
    """The same rows in the same order, in tables of `rows_per_shard`, the last one shorter."""
    held: list[pa.Table] = []
    held_rows = 0
    for rest in tables:
        while held_rows + rest.num_rows >= rows_per_shard:
            room = rows_per_shard - held_rows
            yield _joined([*held, rest.slice(0, room)])
            rest, held, held_rows = rest.slice(room), [], 0
        if rest.num_rows:
            held.append(rest)
            held_rows += rest.num_rows
    if held_rows:
        yield _joined(held)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """One table; where a column came later, the rows before it have none."""
    return pa.concat_tables(tables, promote_options="default").combine_chunks()


def _settle_types(dataset: Dataset, types: ColumnTypes) -> None:
    """Give the staged shards the types that all rows together decided."""
    for shard in dataset.shards():
        path = dataset.input_path(shard)
        with pq.ParquetFile(path) as parquet:
            table = types.typed(parquet.read())
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def _imported(columns: list[str], source: Source) -> dict[str, str]:
    """Column of the shards -> its name in the scores table, of these columns of the input."""
    names = own_names(columns)
    chosen = score_columns(columns, source.import_columns)
    return {names[column]: name for column, name in chosen.items()}


def _number_texts(
    dataset: Dataset, imported: Mapping[str, str], shards: Sequence[str]
) -> list[str]:
    """The imported columns of texts in which every text is a number, or says that there is none."""
    candidates: set[str] | None = None
    for shard in shards:
        with pq.ParquetFile(dataset.input_path(shard)) as parquet:
            if candidates is None:
                schema = parquet.schema_arrow
                candidates = {n for n in imported if pa.types.is_string(schema.field(n).type)}
            if not candidates:
                break
            table = parquet.read(columns=sorted(candidates))
        for name in sorted(candidates):
            if score_numbers(table.column(name).to_pylist()) is None:
                candidates.discard(name)
    return sorted(candidates or ())


def _keyed(batch: pa.RecordBatch, first_row: int, namespace: str) -> pa.Table:
    """The batch with key and row in front, as if nothing were repeated."""
    columns = [batch.column(name).to_pylist() for name in (IDENTITY, "url", "alt_text")]
    keys = [
        sample_key(identity if identity == url else f"{namespace}{identity}", text)
        for identity, url, text in zip(*columns, strict=True)
    ]
    rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
    kept = pa.Table.from_batches([batch]).drop_columns([IDENTITY])
    return kept.add_column(0, "row", pa.array(rows)).add_column(0, "key", pa.array(keys))


def _tell_repeated_apart(dataset: Dataset, rows_per_shard: int) -> None:
    """Give the second, third, ... row of one identity and text keys of their own.

    DuckDB finds the repeated keys (it spills to disk above its memory limit); only the shards that
    hold one are written again. Killed in between, the whole intake is done again.
    """
    import duckdb

    files = [dataset.input_path(shard) for shard in dataset.shards()]
    scratch = dataset.directory / "input" / ".duckdb"
    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(plain_path(scratch)),
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f"CREATE TEMP TABLE repeated AS SELECT key FROM {parquet_scan(files)} "
            "GROUP BY key HAVING count(*) > 1"
        )
        # Where a row lies follows from its number: a list may have columns of any name, also those
        # that DuckDB gives to the place of a row.
        rows = connection.execute(
            f"SELECT row, key FROM {parquet_scan(files)} SEMI JOIN repeated USING (key) "
            "ORDER BY row"
        )
        occurrences: Counter[str] = Counter()
        current = 0
        changed: dict[int, int] = {}
        while batch := rows.fetchmany(10_000):
            for row, key in batch:
                shard, position = divmod(row, rows_per_shard)
                if shard != current:
                    _rewrite(dataset.input_path(f"{current:05d}"), changed)
                    current, changed = shard, {}
                if occurrences[key]:
                    changed[position] = occurrences[key]
                occurrences[key] += 1
        _rewrite(dataset.input_path(f"{current:05d}"), changed)
    empty_directory(scratch)


def _rewrite(path: Path, changed: dict[int, int]) -> None:
    """Derive the keys at these positions anew for their occurrence."""
    if not changed:
        return
    with pq.ParquetFile(path) as parquet:
        table = parquet.read()
    keys = table.column("key").to_pylist()
    # The input's own columns may hold what Python cannot.
    known = {"url", "alt_text", FAILURE, SOURCE_FILE} & set(table.column_names)
    for position, occurrence in changed.items():
        row = {n: table.column(n)[position].as_py() for n in known}
        # The identity of a row without a URL stands in no column; its first key stands for it.
        stand_in = row["url"] is None and (row[FAILURE] or row.get(SOURCE_FILE))
        identity = f"again:{keys[position]}" if stand_in else row["url"]
        keys[position] = sample_key(identity, row["alt_text"], occurrence)
    with atomic_path(path) as temporary:
        pq.write_table(table.set_column(0, "key", pa.array(keys)), temporary, compression="zstd")


def finished(record_path: Path, dataset: Dataset, source: Source) -> Intake:
    """A recorded intake, with the scores to import that are asked for now."""
    record = read_json(record_path)
    known = record.pop("files")
    intake = Intake(**record)
    wanted = _imported(intake.columns or list(source.columns), source)
    if intake.imported != wanted:  # further scores of the same input are asked for
        texts = _number_texts(dataset, wanted, intake.shard_names())
        intake = replace(intake, imported=wanted, number_texts=texts)
        write_intake(dataset, intake, known)
    return intake
