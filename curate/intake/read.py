"""The first step: an input becomes numbered shards of rows, each with its stable key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import (
    atomic_path,
    fingerprint,
    plain_path,
    read_json,
    sha256_file,
    write_json,
)
from curate.base.progress import progress
from curate.intake.column_types import ColumnTypes, score_numbers
from curate.intake.columns import score_columns
from curate.intake.inspection import inspect_input
from curate.intake.left_out import LeftOut
from curate.intake.rows import IDENTITY, own_names
from curate.intake.settings import InputFormat
from curate.intake.source import Source
from curate.store.claims import empty_directory
from curate.store.contract import sample_key
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan
from curate.store.write_samples import ALT_TEXTS, FAILURE, SOURCE_FILE

DEFAULT_ROWS_PER_SHARD = 10_000
_MEMORY_LIMIT = "2GB"
_LISTED_FILES = 1000  # more are recorded as one fingerprint


@dataclass(frozen=True)
class Intake:
    """What was taken in."""

    rows: int
    shards: int
    rows_per_shard: int
    format: str
    local: bool
    """The pictures lie in the input itself; see curate.intake.local_pictures."""
    scheme: str
    root: str
    """Where the rows' `source_file` lie: storage scheme ("" for local paths) and folder."""
    url_column: str | None
    text_column: str | None
    image_column: str | None
    imported: dict[str, str]
    """Column of the input, as it is called in its shards -> its name in the scores table."""
    without_text: int
    broken: dict[str, int]
    """Reason -> rows that came in broken."""
    number_texts: list[str] = field(default_factory=list)
    """Imported columns that are text in the input's shards and hold nothing but numbers."""
    columns: list[str] = field(default_factory=list)
    """The input's further columns under their own names."""
    captions: int | None = None
    """Texts of all unbroken rows; None where no row came with several."""
    captioned: int | None = None
    """Rows that they belong to."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why -> files that are no rows (curate.intake.left_out); all names in left_out.jsonl."""
    left_out_names: dict[str, list[str]] = field(default_factory=dict)
    """Why -> the first of their names."""


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
    record_path = dataset.directory / "input" / "input.json"
    if record_path.exists():
        return _finished(record_path, source, dataset)
    for leftover in record_path.parent.glob("*.parquet"):
        leftover.unlink()
    types = source.column_types()
    shards, counts, left_out = _write_shards(source, dataset, rows_per_shard, types)
    columns: list[str] = list(source.columns)
    if types is not None:
        _settle_types(dataset, types)
        columns = list(types.types())
    _tell_repeated_apart(dataset, rows_per_shard)
    imported = _imported(columns, source)
    rows, without_text = counts.pop("rows"), counts.pop("without_text")
    captions, captioned = counts.pop("captions"), counts.pop("captioned")
    several = captions > captioned
    intake = Intake(
        rows=rows,
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
        without_text=without_text,
        broken=dict(counts.most_common()),
        number_texts=_number_texts(dataset, imported),
        columns=columns,
        captions=captions if several else None,
        captioned=captioned if several else None,
        left_out=dict(left_out.counts),
        left_out_names=left_out.names(),
    )
    write_json(record_path, {**asdict(intake), "files": _files_record(source)})
    return intake


def read_intake(dataset: Dataset) -> Intake | None:
    """What was taken in; None for a dataset that was not made by `plan_shards`."""
    path = dataset.directory / "input" / "input.json"
    if not path.exists():
        return None
    record = read_json(path)
    record.pop("files", None)
    return Intake(**record)


def _write_shards(
    source: Source, dataset: Dataset, rows_per_shard: int, types: ColumnTypes | None
) -> tuple[int, Counter[str], LeftOut]:
    counts: Counter[str] = Counter(rows=0, without_text=0, captions=0, captioned=0)
    shards = 0
    names = dataset.directory / "input" / "left_out.jsonl"
    with atomic_path(names) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        left_out = LeftOut(file)
        with progress(None, "reading the input", "row") as bar:
            for table in _shard_tables(source, rows_per_shard, types, left_out):
                with atomic_path(dataset.input_path(f"{shards:05d}")) as temporary:
                    pq.write_table(table, temporary, compression="zstd")
                shards += 1
                _count(table, counts)
                bar.update(table.num_rows)
    if not left_out.counts:
        names.unlink()
    return shards, counts, left_out


def _count(table: pa.Table, counts: Counter[str]) -> None:
    counts["rows"] += table.num_rows
    counts.update(table.column(FAILURE).drop_null().to_pylist())
    unbroken = table.filter(table.column(FAILURE).is_null())
    texts = unbroken.column("alt_text")
    several = unbroken.column(ALT_TEXTS)
    alone = len(texts) - texts.null_count - (len(several) - several.null_count)
    counts["without_text"] += texts.null_count
    counts["captioned"] += len(texts) - texts.null_count
    counts["captions"] += alone + (pc.sum(pc.list_value_length(several)).as_py() or 0)


def _shard_tables(
    source: Source, rows_per_shard: int, types: ColumnTypes | None, left_out: LeftOut
) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    held_rows, row = 0, 0
    for batch in source.batches(min(rows_per_shard, DEFAULT_ROWS_PER_SHARD), types, left_out):
        rest = _keyed(batch, row)
        row += batch.num_rows
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


def _number_texts(dataset: Dataset, imported: Mapping[str, str]) -> list[str]:
    """The imported columns of texts in which every text is a number, or says that there is none."""
    candidates: set[str] | None = None
    for shard in dataset.shards():
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


def _keyed(batch: pa.RecordBatch, first_row: int) -> pa.Table:
    """The batch with key and row in front, as if nothing were repeated."""
    pairs = zip(
        batch.column(IDENTITY).to_pylist(), batch.column("alt_text").to_pylist(), strict=True
    )
    keys = [sample_key(identity, text) for identity, text in pairs]
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
        "memory_limit": _MEMORY_LIMIT,
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


# ---- the record of a finished intake ----------------------------------------------------------


def _files_record(source: Source) -> Any:
    """What the input looked like: enough to see that it changed.

    A local list is hashed. Tars, pictures and remote files go by name and size, remote ones also
    by their time.
    """
    hashed = not source.local and not source.store.scheme
    records = []
    for path in source.files:
        size, modified = source.store.state(path)
        record: dict[str, Any] = {"path": path, "bytes": size}
        if hashed:
            record |= {
                "modified_ns": modified,
                "sha256": sha256_file(Path(source.store.root) / path),
            }
        elif source.store.scheme:
            record["modified_ns"] = modified
        records.append(record)
    if not source.files:
        return {"names": fingerprint(list(source.store.walk()))}
    return records if len(records) <= _LISTED_FILES else {"fingerprint": fingerprint(records)}


def _finished(record_path: Path, source: Source, dataset: Dataset) -> Intake:
    """The recorded intake, if `source` is still what it was made from."""
    record = read_json(record_path)
    known = record.pop("files")
    if not _same_files(known, source):
        raise DatasetError(
            f"{record_path.parent.parent} was made from another version of its input; "
            f"choose another --out for this one."
        )
    intake = Intake(**record)
    wanted = _imported(intake.columns or list(source.columns), source)
    if intake.imported != wanted:  # further scores of the same input are asked for
        intake = replace(intake, imported=wanted, number_texts=_number_texts(dataset, wanted))
        write_json(record_path, {**asdict(intake), "files": known})
    return intake


def _same_files(known: Any, source: Source) -> bool:
    if not isinstance(known, list) or not known or "sha256" not in known[0]:
        return bool(known == _files_record(source))
    if [record["path"] for record in known] != list(source.files):
        return False
    return all(_unchanged(record, source) for record in known)


def _unchanged(known: dict[str, Any], source: Source) -> bool:
    size, modified = source.store.state(known["path"])
    if size != known["bytes"]:
        return False
    # An untouched file needs no hashing; a touched one may still hold the same bytes.
    file = Path(source.store.root) / known["path"]
    return modified == known["modified_ns"] or sha256_file(file) == known["sha256"]
