"""A further list, or one that has grown, joins a dataset: the rows whose keys are new to it.

The list is read as if it made a dataset of its own, so that its rows get the keys that they always
get: by URL and text, and by their occurrence in this list. Rows whose keys the dataset has are
left out, whatever their order; the others become shards behind those that are there, and keep their
numbers in their list as `row`. So a row that a list has twice and the dataset once joins once, and
the same list joins once.

    DIR/joining/list/       the list as a dataset of its own
    DIR/joining/next/       the shards that join; complete once joining/done.json is there

Killed before that note, the list is read again; killed behind it, `finish_joining` moves the rest.

Rows without a URL (pictures of tars and folders, broken rows) are known by their place below the
input (docs/inputs.md). In an input of another folder than the first's the same place is another
picture, so a hash of the folder stands before it there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.column_marks import note
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import (
    atomic_path,
    fingerprint,
    plain_path,
    read_json,
    sync_directory,
    write_json,
)
from curate.intake.inspection import inspect_input
from curate.intake.lists.record import (
    Intake,
    files_record,
    find_same,
    first_shard_of,
    read_intake,
    read_intakes,
    record_path,
    write_intake,
)
from curate.intake.read import MEMORY_LIMIT, Counts, cut, finished, plan_shards
from curate.intake.settings import IntakeSettings
from curate.intake.source import Source
from curate.store.claims import empty_directory
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan

LIST_NOTE = b"caplab_list"
"""In the metadata of a shard that joined: {"input": ..., "first_shard": ...} of its list."""

_COUNTED = re.compile(r" \(\d[\d,]* files: [0-9a-f]+\)$")  # behind the address of several files


def join_list(source: Source, dataset: Dataset, rows_per_shard: int) -> Intake:
    """Take in the rows of a list whose keys are new to the dataset, as further shards.

    Nothing is written where no row is new. Cost: one reading of the list and a join of its keys
    with all others, on disk where they are many; memory is that of `plan_shards`.

    Returns:
        What was taken in now, or earlier if it is a list of the dataset already.

    Raises:
        ConfigError: the list is unreadable, or has scores that do not fit those of the dataset.
        DatasetError: the dataset's own list is not taken in yet.
    """
    finish_joining(dataset)
    if not record_path(dataset).exists():
        raise DatasetError(
            f"{dataset.directory} has not taken in its own list yet; run the command that made it, "
            f"without --extend, first."
        )
    if (same := find_same(dataset, source)) is not None:
        return finished(same, dataset, source)
    shards = dataset.shards()
    known = [dataset.input_path(shard) for shard in shards]
    first_shard = int(shards[-1]) + 1
    try:
        intake = stage_new_rows(source, dataset, known, first_shard, rows_per_shard)
        _refuse_other_kinds(dataset, intake)
        if intake.rows:
            record = {**asdict(intake), "files": files_record(source)}
            write_json(_folder(dataset) / "done.json", record)
    finally:
        if not (_folder(dataset) / "done.json").exists():
            empty_directory(_folder(dataset))
    finish_joining(dataset)
    return intake


def stage_new_rows(
    source: Source,
    dataset: Dataset,
    known: list[Path],
    first_shard: int,
    rows_per_shard: int,
    first: Dataset | None = None,
) -> Intake:
    """Write the rows of a list whose keys are in none of `known` as `staged_shards` of `dataset`.

    Args:
        first: the dataset whose first list decides which places are its own; by default `dataset`.
    """
    folder = _folder(dataset)
    empty_directory(folder)
    before = read_intake(first or dataset)
    own = (source.store.scheme, source.store.root)
    if before is not None and own != (before.scheme, before.root):
        source = replace(source, namespace=f"in:{fingerprint(own)}:")
    alone, counts, shards = Dataset(folder / "list"), Counts(), 0
    whole = plan_shards(source, alone, rows_per_shard=rows_per_shard)
    told = list_note(replace(whole, first_shard=first_shard))
    for table in cut(_new_rows(alone, known, rows_per_shard), rows_per_shard):
        metadata = {**(table.schema.metadata or {}), **told}
        with atomic_path(folder / "next" / f"{first_shard + shards:05d}.parquet") as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
        counts.add(table)
        shards += 1
    names = alone.directory / "input" / "left_out.jsonl"
    if names.exists() and shards:
        names.replace(folder / "next" / f"left_out-{first_shard:05d}.jsonl")
    return replace(
        whole,
        shards=shards,
        first_shard=first_shard,
        known=whole.rows - counts.rows,
        **counts.fields(),
    )


def list_note(intake: Intake) -> dict[bytes, bytes]:
    """What stands in the metadata of each shard of a list that joined."""
    return note({"input": intake.given, "first_shard": intake.first_shard}, LIST_NOTE)


def staged_shards(dataset: Dataset) -> list[Path]:
    """The shards that `stage_new_rows` wrote, in order."""
    return sorted((_folder(dataset) / "next").glob("[0-9]*.parquet"))


def finish_joining(dataset: Dataset) -> None:
    """Make good what a kill left: move the shards that are complete, or drop what is not."""
    folder = _folder(dataset)
    if (folder / "done.json").exists():
        record = read_json(folder / "done.json")
        files = record.pop("files")
        for path in sorted((folder / "next").iterdir()):
            os.replace(path, dataset.directory / "input" / path.name)
        sync_directory(dataset.directory / "input")
        write_intake(dataset, Intake(**record), files)
        note_lists(dataset)
    empty_directory(folder)


def note_lists(dataset: Dataset) -> None:
    """Tell of all lists in dataset.json: which shards came from which."""
    lists = [
        {
            "input": intake.given,
            "format": intake.format,
            "first_shard": intake.shard_names()[0],
            "last_shard": intake.shard_names()[-1],
            "rows": intake.rows,
            "known": intake.known,
            "reading": intake.reading(),
        }
        for intake in read_intakes(dataset)
    ]
    record = dataset.record()
    if record.get("lists") != lists and len(lists) > 1:
        for path in (dataset.record_path, dataset.record_copy):
            write_json(path, {**record, "lists": lists})


def source_of(dataset: Dataset, first_shard: int) -> Source:
    """The list of that shard, looked at as dataset.json tells that it was.

    Raises:
        ConfigError: it is not there any more, or cannot be read so.
    """
    record = dataset.record()
    for one in record.get("lists", []):
        if int(one["first_shard"]) == first_shard:
            return inspect_input(one["input"], **one["reading"])
    settings = record.get("settings", {})
    names = {*IntakeSettings.model_fields} - {"rows_per_shard"}
    reading = {name: settings[name] for name in names if name in settings}
    return inspect_input(_COUNTED.sub("", str(record["identity"]["input"])), **reading)


def known_before(dataset: Dataset, first_shard: int) -> list[Path]:
    """The rows that the dataset had when the list joined that begins with this shard."""
    return [dataset.input_path(s) for s in dataset.shards() if int(s) < first_shard]


def joined_first_shards(dataset: Dataset) -> list[int]:
    """The first shard of each list that joined, also of those whose record is lost."""
    noted = dataset.record().get("lists", [])[1:]
    names = {int(one["first_shard"]) for one in noted}
    names |= {first_shard_of(path) for path in dataset.list_records()}
    return sorted(names - {0})


def _folder(dataset: Dataset) -> Path:
    return dataset.directory / "joining"


def _new_rows(alone: Dataset, known: list[Path], rows_per_shard: int) -> Iterator[pa.Table]:
    """The rows of a list that are not among `known`, in its order; at most a shard at a time."""
    import duckdb

    scratch = alone.directory / ".duckdb"
    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(plain_path(scratch)),
    }
    listed = parquet_scan([alone.input_path(shard) for shard in alone.shards()])
    with duckdb.connect(config=config) as connection:
        connection.execute("SET enable_progress_bar = false")
        found = connection.execute(
            f"SELECT row FROM (SELECT key, row FROM {listed}) "
            f"ANTI JOIN (SELECT key FROM {parquet_scan(known)}) USING (key) ORDER BY row"
        )
        numbers = (row for batch in iter(lambda: found.fetchmany(10_000), []) for (row,) in batch)
        for shard, rows in groupby(numbers, lambda row: row // rows_per_shard):
            with pq.ParquetFile(alone.input_path(f"{shard:05d}")) as parquet:
                yield parquet.read().take(pa.array([row % rows_per_shard for row in rows]))


def _refuse_other_kinds(dataset: Dataset, intake: Intake) -> None:
    """An imported score that is a number in one list and a text in another obeys no rule."""
    if not intake.rows:
        return
    joining = _folder(dataset) / "next" / f"{intake.first_shard:05d}.parquet"
    kinds = _kinds(joining, intake)
    for other in read_intakes(dataset):
        before = _kinds(dataset.input_path(other.shard_names()[0]), other)
        for name in sorted(kinds.keys() & before.keys()):
            if kinds[name] != before[name]:
                raise ConfigError(
                    f"{intake.given} has {kinds[name]}s in {name}, and the dataset's list "
                    f"{other.given} {before[name]}s; give the column the same form in both."
                )


def _kinds(shard: Path, intake: Intake) -> dict[str, str]:
    """Imported score -> "number" or "text"."""
    schema = pq.read_schema(shard)
    return {
        name: "text"
        if pa.types.is_string(schema.field(column).type) and column not in intake.number_texts
        else "number"
        for column, name in intake.imported.items()
    }
