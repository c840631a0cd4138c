"""The first step: an input list becomes numbered shards of rows, each with its stable key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset, sample_key
from curate.errors import DatasetError
from curate.files import atomic_path, read_json, sha256_file, write_json
from curate.input_list import InputList, find_files, inspect_input
from curate.progress import progress

DEFAULT_ROWS_PER_SHARD = 10_000


@dataclass(frozen=True)
class Intake:
    """What was taken in."""

    rows: int
    shards: int
    rows_per_shard: int
    url_column: str
    text_column: str


def plan_shards(
    source: InputList | Path | str,
    dataset: Dataset,
    url_column: str | None = None,
    text_column: str | None = None,
    rows_per_shard: int = DEFAULT_ROWS_PER_SHARD,
) -> Intake:
    """Cut an input list into `dataset.input_path(shard)` files, in the list's order.

    Each file holds the columns key, row (number in the list, from 0), url, alt_text, and every
    other column of the list under its own name ("input_NAME" where that would hide one of ours).
    Rows with the same URL and text are told apart by their occurrence (`sample_key`). The same
    list gives the same files. `input/input.json` comes last and says that all are there; with it,
    a second call does nothing. One pass to check, one to write; memory is one shard of rows.

    Args:
        source: the list, or what `inspect_input` said of it (saves reading it twice).

    Raises:
        ConfigError: the list is missing, unreadable, empty or lacks a column; nothing is written.
        DatasetError: the dataset was made from another list, or the list changed since.
    """
    record_path = dataset.directory / "input" / "input.json"
    if record_path.exists():
        named = source.files if isinstance(source, InputList) else find_files(str(source))
        return _finished(record_path, named)
    if not isinstance(source, InputList):
        source = inspect_input(source, url_column, text_column)
    for leftover in record_path.parent.glob("*.parquet"):
        leftover.unlink()
    shards = 0
    with progress(source.rows, "reading the list", "row") as bar:
        for table in _shard_tables(source, rows_per_shard):
            with atomic_path(dataset.input_path(f"{shards:05d}")) as temporary:
                pq.write_table(table, temporary, compression="zstd")
            shards += 1
            bar.update(table.num_rows)
    intake = Intake(source.rows, shards, rows_per_shard, source.url_column, source.text_column)
    write_json(record_path, {**asdict(intake), "files": [_file_record(f) for f in source.files]})
    return intake


def _shard_tables(source: InputList, rows_per_shard: int) -> Iterator[pa.Table]:
    occurrences: Counter[str] = Counter()
    held: list[pa.Table] = []
    held_rows, row = 0, 0
    for batch in source.batches(rows_per_shard):
        rest = _keyed(batch, row, source.repeated, occurrences)
        row += batch.num_rows
        while held_rows + rest.num_rows >= rows_per_shard:
            room = rows_per_shard - held_rows
            yield pa.concat_tables([*held, rest.slice(0, room)]).combine_chunks()
            rest, held, held_rows = rest.slice(room), [], 0
        if rest.num_rows:
            held.append(rest)
            held_rows += rest.num_rows
    if held_rows:
        yield pa.concat_tables(held).combine_chunks()


def _keyed(
    batch: pa.RecordBatch, first_row: int, repeated: np.ndarray, occurrences: Counter[str]
) -> pa.Table:
    """The batch with key and row in front. Only pairs seen twice or more are counted in memory."""
    urls, texts = batch.column("url").to_pylist(), batch.column("alt_text").to_pylist()
    keys = [sample_key(url, text) for url, text in zip(urls, texts, strict=True)]
    may_repeat = np.isin(batch.column("pair_hash").to_numpy(zero_copy_only=False), repeated)
    for index in np.flatnonzero(may_repeat):
        first_key = keys[index]
        occurrence = occurrences[first_key]
        occurrences[first_key] += 1
        keys[index] = sample_key(urls[index], texts[index], occurrence)
    rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
    kept = pa.Table.from_batches([batch]).drop_columns(["pair_hash"])
    return kept.add_column(0, "row", pa.array(rows)).add_column(0, "key", pa.array(keys))


# ---- the record of a finished intake ----------------------------------------------------------


def _file_record(file: Path) -> dict[str, Any]:
    state = file.stat()
    return {
        "path": str(file),
        "bytes": state.st_size,
        "modified_ns": state.st_mtime_ns,
        "sha256": sha256_file(file),
    }


def _finished(record_path: Path, files: tuple[Path, ...]) -> Intake:
    """The recorded intake, if `files` are still what it was made from."""
    record = read_json(record_path)
    known = record.pop("files")
    if len(known) != len(files) or not all(map(_unchanged, known, files)):
        raise DatasetError(
            f"{record_path.parent.parent} was made from another version of its input list; "
            f"choose another --out for this one."
        )
    return Intake(**record)


def _unchanged(known: dict[str, Any], file: Path) -> bool:
    state = file.stat()
    if state.st_size != known["bytes"]:
        return False
    # An untouched file needs no hashing; a touched one may still hold the same bytes.
    return state.st_mtime_ns == known["modified_ns"] or sha256_file(file) == known["sha256"]
