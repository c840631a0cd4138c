"""Clear away what is damaged, so that the stages make it again; nothing is computed here.

A stage takes a shard up when its table is not there. What was made from a table that goes goes as
well, where it would not notice itself: alt captions and imported scores of a shard whose samples
are stored anew. Scores notice (their rows are compared with the stored samples), and so do
duplicates. Killed at any point, the rest is found as a hole again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.intake.imported_scores import forget_imported
from curate.intake.lists.join import (
    joined_first_shards,
    known_before,
    list_note,
    source_of,
    stage_new_rows,
    staged_shards,
)
from curate.intake.lists.record import (
    Intake,
    files_record,
    first_shard_of,
    is_same,
    read_one,
    record_path,
    write_intake,
)
from curate.intake.read import plan_shards
from curate.intake.source import Source
from curate.store.claims import empty_directory
from curate.store.dataset import Dataset
from curate.store.holes import (
    ALT,
    DUPLICATE_TABLES,
    INPUT,
    SCORE_TABLES,
    TARS,
    Hole,
    parquet_damage,
    path_of,
)


def clear_damaged(dataset: Dataset, holes: Iterable[Hole]) -> list[Hole]:
    """Make way for the stages of `caplab curate` and `caplab score`.

    Returns:
        The holes that they cannot mend: captions of a captioner, matches of references, selections
        (and those of the input, which `restore_input` mends before).

    Raises:
        DatasetError: something is in the way that is not ours to delete.
    """
    left = []
    stored_anew = set()
    for hole in holes:
        kind = hole.table.partition("/")[0]
        if hole.problem.startswith("cannot be read"):
            raise DatasetError(f"{hole.path} {hole.problem}; make it readable first.")
        if hole.table in ("samples", TARS):
            stored_anew.add(hole.name)
        elif hole.table in (*SCORE_TABLES, ALT) or kind == "caption_scores":
            _remove(hole.path)
        elif hole.table in DUPLICATE_TABLES:
            _remove(hole.path)
            # By this table a search knows that it was done.
            _remove(dataset.table_path("duplicates"))
        else:
            left.append(hole)
    for shard in sorted(stored_anew):
        store_anew(dataset, shard)
    return left


def store_anew(dataset: Dataset, shard: str) -> None:
    """Have the download store a shard again; its tar stays until the new one takes its place."""
    if parquet_damage(dataset.table_path("scores", shard)) is None:
        forget_imported(dataset, shard)
    _remove(path_of(dataset, ALT, shard))
    tar = dataset.shard_path(shard)
    if tar.is_dir():
        _remove(tar)
    _remove(dataset.table_path("samples", shard))


def restore_lists(
    dataset: Dataset,
    holes: Iterable[Hole],
    rows_per_shard: int,
    given: Source | None = None,
) -> None:
    """Read the lists again of which rows or records were lost; see `restore_input`.

    Args:
        given: a list as it was named now, perhaps at another place than dataset.json tells: what
            the first list is read from that has lost something.
    """
    firsts = [0, *joined_first_shards(dataset)]
    lost: dict[int, list[Hole]] = {}
    for hole in holes:
        if hole.table == INPUT:
            record = Path(hole.name).suffix == ".json"
            first = first_shard_of(Path(hole.name)) if record else int(hole.name)
            lost.setdefault(max(one for one in firsts if one <= first), []).append(hole)
    for first in sorted(lost):  # what a list added rests on the rows of those before it
        source, given = given or source_of(dataset, first), None
        restore_input(source, dataset, rows_per_shard, lost[first], first)


def restore_input(
    source: Source,
    dataset: Dataset,
    rows_per_shard: int,
    holes: Iterable[Hole] = (),
    first_shard: int = 0,
) -> list[str]:
    """Read a list once more and put lost or damaged shards of its rows in their places.

    Of a list that has changed since (it grew, say), the rows are found by their keys, which the
    samples tell: rows without a URL only where they still stand at their place.

    Args:
        holes: what was found; those of the input are put back also where only
            `curate.store.check` sees that they are damaged.
        first_shard: of the list, where it joined the dataset later.

    Returns:
        Names of the shards that were put back.

    Raises:
        DatasetError: the input holds other rows than those that are lost, or nobody knows which
            these were; nothing is changed then.
    """
    scratch = Dataset(dataset.directory / ".scratch" / "input")
    empty_directory(scratch.directory)
    if first_shard:
        known = known_before(dataset, first_shard)
        intake = stage_new_rows(source, scratch, known, first_shard, rows_per_shard, dataset)
        staged = {path.stem: path for path in staged_shards(scratch)}
    else:
        intake = plan_shards(source, scratch, rows_per_shard=rows_per_shard)
        staged = {shard: scratch.input_path(shard) for shard in scratch.shards()}
    named = {hole.name for hole in holes if hole.table == INPUT}
    record = record_path(dataset, first_shard)
    recorded = read_one(record) if record.exists() and record.name not in named else None
    same_list = recorded is not None and is_same(record, source)
    same = recorded is None or recorded.rows == intake.rows
    lost = []
    for shard, path in staged.items():
        listed = _keys(path) or []
        keys = None if shard in named else _keys(dataset.input_path(shard))
        if keys is None:
            lost.append(shard)
            keys = _keys(dataset.table_path("samples", shard))
            if keys is None or (same_list and set(keys) <= set(listed)):
                keys = listed  # rows that the samples lost themselves come to light later
        same = same and keys == listed
    as_recorded = same
    if not same and recorded is not None:
        whole = Dataset(scratch.directory / "joining" / "list") if first_shard else scratch
        lost = [
            shard
            for shard in recorded.shard_names()
            if shard in named or _keys(dataset.input_path(shard)) is None
        ]
        same = all(_found_by_key(dataset, shard, whole, recorded, staged) for shard in lost)
    if not same:
        empty_directory(scratch.directory)
        raise DatasetError(
            f"{source.address} is not the list any more that {dataset.directory} was made "
            f"from; without that list, the lost rows of input/ cannot be put back."
        )
    (dataset.directory / "input").mkdir(exist_ok=True)
    for shard in lost:
        _remove(dataset.input_path(shard))
        staged[shard].replace(dataset.input_path(shard))
    if as_recorded:
        # The record comes last: it says that all are there.
        _remove(record)
        write_intake(dataset, intake, files_record(source))
    empty_directory(scratch.directory)
    return lost


def _found_by_key(
    dataset: Dataset, shard: str, whole: Dataset, known: Intake, staged: dict[str, Path]
) -> bool:
    """Stage the rows of a shard that its samples tell; whether all are in `whole`, a list."""
    samples = dataset.table_path("samples", shard)
    if _keys(samples) is None:
        return False
    with pq.ParquetFile(samples) as parquet:
        wanted = parquet.read(columns=["key", "row"])
    found = []
    for part in whole.shards():
        with pq.ParquetFile(whole.input_path(part)) as parquet:
            rows = parquet.read()
        found.append(rows.filter(pc.is_in(rows.column("key"), wanted.column("key"))))
    rows = pa.concat_tables(found, promote_options="default")
    places = pc.index_in(wanted.column("key"), rows.column("key"))
    if places.null_count:
        return False
    rows = rows.take(places).set_column(
        rows.schema.get_field_index("row"), "row", wanted.column("row").cast(pa.int64())
    )
    if known.first_shard:
        rows = rows.replace_schema_metadata(list_note(known))
    staged[shard] = whole.directory / f"{shard}.parquet"
    pq.write_table(rows, staged[shard], compression="zstd")
    return True


def _keys(path: Path) -> list[str] | None:
    """The keys of a table; None where it is lost or damaged."""
    if parquet_damage(path) is not None:
        return None
    try:
        with pq.ParquetFile(path) as parquet:
            keys: list[str] = parquet.read(columns=["key"]).column("key").to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return None
    return keys


def _remove(path: Path) -> None:
    """Remove a file, or an empty folder that stands in its place."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{path} is in the way and cannot be removed ({error.strerror}); move it away."
        ) from error
