"""What a dataset has lost, found without reading it: files that are missing, empty, cut or foreign.

    DIR/finished/TABLE.json        the shards that TABLE held when its stage was last done with all;
                                   captions+SOURCE.json and the like where a table has sources

By that record a table that was lost is told from one that was never made. Without it (a run that
was killed, a dataset of an earlier version), a shard that has samples and lacks what other shards
have counts as unfinished: whoever selects or trains on it would get fewer rows as well.

A file is looked at from outside: it is there, is a file, can be opened, and starts and ends as its
format does. Cost: one listing a folder, and 0.2 to 0.5 ms a shard for its seven files (measured on
one core of a busy machine); `curate.store.check` reads what lies inside.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from curate.base.errors import DatasetError
from curate.base.files import read_json, write_json
from curate.base.telling.words import amount
from curate.store.contract import DERIVED, IMPORTED_FROM, WRITTEN_BY
from curate.store.dataset import Dataset
from curate.store.shards import tar_note

SCORE_TABLES = ("scores", "embeddings", "fingerprints")
DUPLICATE_TABLES = ("duplicate_pairs", "duplicate_searched", "duplicates")
TARS = "shards"
"""Stands among the tables for the tars."""
ALT = "captions/alt"
INPUT = "input"
SELECTIONS = "selections"
RECORD = "dataset.json"
STRAY = "stray"

_BY_SHARD = ("samples", TARS, *SCORE_TABLES, ALT)
_LOST = "is lost"
_PARQUET = b"PAR1"
_TAR_END = 1024  # bytes, all zero


@dataclass(frozen=True)
class Hole:
    """A file that is not what it should be.

    `table` is that of the record, such as "scores", "captions/alt", "shards" (a tar), "input" or
    "selections"; `name` the shard, or what stands in its place.
    """

    table: str
    name: str
    path: Path
    problem: str
    """Behind the path: "is lost", "is cut or no Parquet"."""
    unfinished: bool = False
    """It was never made: the stage that makes it did not end."""


def refuse_holes(
    dataset: Dataset,
    selections: Collection[str] | None = (),
    but: Collection[str] = (),
    unfinished: bool = False,
) -> None:
    """Raise DatasetError where rows would be missing without a word. Cost: see the module.

    Args:
        selections: names of those that are about to be read; None means all.
        but: tables that are not read, or made again: captions stand for those of all captioners.
        unfinished: whether a run that has not ended yet is fine.
    """
    found = find_holes(dataset, selections)
    holes = [
        hole
        for hole in found
        if hole.table == ALT or not {hole.table, hole.table.partition("/")[0]} & set(but)
    ]
    lost = [hole for hole in holes if not hole.unfinished]
    place = dataset.directory
    if lost:
        first = lost[0].path.relative_to(place)
        count = f"{len(lost):,} holes, first: " if len(lost) > 1 else "a hole: "
        raise DatasetError(
            f"{place} has {count}{first} {lost[0].problem}; `caplab check {place}` names them all, "
            f"and with --repair it fetches and computes again what is gone."
        )
    if holes and not unfinished:
        first = holes[0].path.relative_to(place)
        raise DatasetError(
            f"{place} is not finished: "
            f"{amount(len(holes), 'file was', 'files were')} never written, first {first}; the "
            f"`caplab curate` or `caplab score` that was stopped goes on with the same command, as "
            f"does `caplab check {place} --repair`."
        )


def find_holes(dataset: Dataset, selections: Collection[str] | None = None) -> list[Hole]:
    """All holes, in the order in which they are to be mended.

    Args:
        selections: look at these; None means all.
    """
    holes = list(_input_holes(dataset))
    finished = finished_tables(dataset)
    shards = all_shards(dataset)
    sampled = {name for name in shards if dataset.table_path("samples", name).exists()}
    sampled |= {*finished.get("samples", ())}
    for table in [*_BY_SHARD, *sorted({*_sources(dataset), *finished} - {*_BY_SHARD})]:
        expected = set(finished.get(table, ()))
        present = _present(dataset, table)
        if table in _BY_SHARD and (present or table in finished):
            # Also of shards that came after the record, with a list that joined.
            if table == TARS:
                expected |= _written_tars(dataset, sampled - present - expected)
            else:
                expected |= set(shards) if table == "samples" else sampled
        optional = table.partition("/")[0] in ("captions", "caption_scores") and table != ALT
        if not present and optional:
            continue  # the folder was removed with all that it held, which nobody does by mistake
        for name in sorted(expected | present):
            path = path_of(dataset, table, name)
            if name not in present:
                # A tar comes before its samples table, so one that is not there was there.
                unfinished = name not in finished.get(table, ()) and table != TARS
                problem = "was never written" if unfinished else _LOST
                holes.append(Hole(table, name, path, problem, unfinished))
            elif damage := (tar_damage if table == TARS else parquet_damage)(path):
                holes.append(Hole(table, name, path, damage))
    return holes + list(_selection_holes(dataset, selections))


def finished_tables(dataset: Dataset) -> dict[str, list[str]]:
    """Table -> shards that it held when its stage was done, such as {"scores": ["00000"]}.

    A record that is damaged itself counts as none; `curate.store.check` names it.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((dataset.directory / "finished").glob("[!.]*.json")):
        try:
            found[path.stem.replace("+", "/", 1)] = [str(name) for name in read_json(path)["held"]]
        except (DatasetError, KeyError, TypeError):
            continue
    return found


def note_finished(dataset: Dataset, *tables: str) -> None:
    """Remember which shards these tables hold. What was held before and is gone stays noted.

    To be called when a stage is done with all shards, under the lock of what it writes.
    """
    known = finished_tables(dataset)
    for table in tables:
        held = sorted(_present(dataset, table) | set(known.get(table, ())))
        if held and held != known.get(table):
            write_json(finished_path(dataset, table), {"held": held})


def finished_path(dataset: Dataset, table: str) -> Path:
    """The record of one table."""
    return dataset.directory / "finished" / f"{table.replace('/', '+')}.json"


def all_shards(dataset: Dataset) -> list[str]:
    """Names of all shards that the lists were cut into, also of those whose file is lost."""
    names = set(dataset.shards())
    for path in dataset.list_records():
        with suppress(DatasetError, KeyError, TypeError, ValueError):  # named by find_holes
            record = read_json(path)
            first, shards = int(record.get("first_shard", 0)), int(record["shards"])
            names |= {f"{number:05d}" for number in range(first, first + shards)}
    return sorted(names)


def path_of(dataset: Dataset, table: str, name: str) -> Path:
    """The file of a shard in a table as the record names it."""
    if table == TARS:
        return dataset.shard_path(name)
    kind, _, source = table.partition("/")
    return dataset.table_path(kind, name, source or None)


def parquet_damage(path: Path) -> str | None:
    """What is wrong with a Parquet file, as far as its two ends tell; None where nothing is."""
    ends = _ends(path, len(_PARQUET))
    if isinstance(ends, str):
        return ends
    return None if ends == (_PARQUET, _PARQUET) else "is cut or no Parquet"


def tar_damage(path: Path) -> str | None:
    """What is wrong with a tar, as far as size and end tell."""
    ends = _ends(path, _TAR_END)
    if isinstance(ends, str):
        return ends
    whole = path.stat().st_size % 512 == 0 and not any(ends[1])
    return None if whole else "is cut or no tar"


def json_damage(path: Path) -> str | None:
    """What is wrong with a record: it is not there, or holds no JSON object."""
    try:
        return None if isinstance(read_json(path), Mapping) else "is no record"
    except DatasetError:
        return "is cut or no JSON" if path.exists() else _LOST


def refuse_damaged(path: Path) -> None:
    """Raise DatasetError for a Parquet file that is not there or not whole."""
    if damage := parquet_damage(path):
        raise DatasetError(f"{path} {damage}; `caplab check` says what repairs it.")


def _ends(path: Path, size: int) -> tuple[bytes, bytes] | str:
    """The first and last `size` bytes, or what is wrong."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not status.st_size:
                return "is empty"
            first = file.read(size)
            file.seek(max(0, status.st_size - size))
            return first, file.read(size)
    except FileNotFoundError:
        return _LOST
    except IsADirectoryError:
        return "is a folder and no file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _input_holes(dataset: Dataset) -> Iterator[Hole]:
    folder = dataset.directory / "input"
    records = dataset.list_records()
    for record in records:
        try:
            int(read_json(record)["shards"])
        except (DatasetError, KeyError, TypeError, ValueError):
            yield Hole(INPUT, record.name, record, "is cut or no record of an input")
    first = folder / "input.json"
    told = [first] if finished_path(dataset, "samples").exists() else []
    with suppress(DatasetError, KeyError, TypeError, ValueError):  # named by curate.store.check
        lists = dataset.record().get("lists", [])[1:]
        told += [folder / f"input-{one['first_shard']}.json" for one in lists]
    for record in told:
        if record not in records:
            yield Hole(INPUT, record.name, record, _LOST)
    for name in all_shards(dataset):
        path = dataset.input_path(name)
        if damage := parquet_damage(path):
            yield Hole(INPUT, name, path, damage)


def _selection_holes(dataset: Dataset, names: Collection[str] | None) -> Iterator[Hole]:
    folder = dataset.directory / SELECTIONS
    found = {path.stem for path in folder.glob("[!.]*.parquet")}
    found |= {path.stem for path in folder.glob("[!.]*.json")}
    for name in sorted(found if names is None else found & set(names)):
        path = dataset.selection_path(name)
        if damage := parquet_damage(path):
            yield Hole(SELECTIONS, name, path, damage)
        if damage := json_damage(path.with_suffix(".json")):
            yield Hole(SELECTIONS, name, path.with_suffix(".json"), damage)


def _written_tars(dataset: Dataset, shards: Collection[str]) -> set[str]:
    """Those of `shards` whose samples table says that a tar was written with it."""
    found = set()
    for shard in shards:
        path = dataset.table_path("samples", shard)
        with suppress(OSError, ValueError):  # a damaged table is a hole of its own
            if tar_note(path):
                found.add(shard)
    return found


def _sources(dataset: Dataset) -> list[str]:
    """Tables beyond those of every shard that lie in the dataset, by the record's names."""
    tables = [
        f"{kind}/{path.name}"
        for kind in ("captions", "caption_scores")
        for path in dataset.table_directory(kind).glob("[!.]*")
        if path.is_dir()
    ]
    return tables + [t for t in (*DUPLICATE_TABLES, "reference_matches") if dataset.has_table(t)]


def _present(dataset: Dataset, table: str) -> set[str]:
    """Names that a table holds, whole or not."""
    kind, _, source = table.partition("/")
    suffix = ".tar" if table == TARS else ".parquet"
    folder = dataset.directory / TARS
    if table != TARS:
        folder = dataset.table_directory(kind, source or None)
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {
        name.removesuffix(suffix)
        for name in names
        if name.endswith(suffix) and not name.startswith(".")
    }


def repairing(dataset: Dataset, hole: Hole) -> str:
    """The command that mends a hole."""
    place = dataset.directory
    kind, _, source = hole.table.partition("/")
    if kind == "captions" and source.startswith(DERIVED):
        return f"caplab derive {place}, with the settings in captioners/{source}.json"
    if kind == "captions" and source.startswith(IMPORTED_FROM):
        return f"caplab import-captions {place}, with the settings in captioners/{source}.json"
    if kind == "captions" and source.startswith(WRITTEN_BY):
        return "put it back from a backup: people wrote it"
    if kind == "captions" and hole.table != ALT:
        return f"caplab recaption {place}, with the settings in captioners/{source}.json"
    if kind == "reference_matches":
        return f"caplab decontaminate {place} --references {hole.name}"
    lasting = "version" in hole.problem or not dataset.record_copy.exists()
    if hole.table == RECORD and lasting:
        return "put it back from a backup"
    if hole.table == STRAY:
        return "move it out of the dataset"
    if hole.table == SELECTIONS and hole.path.suffix == ".json" and not _is_first(dataset, hole):
        return f"caplab select {place} --name {hole.name} --overwrite"
    return f"caplab check {place} --repair"


def _is_first(dataset: Dataset, hole: Hole) -> bool:
    """Whether this is the selection of `caplab curate`, whose rules stand in dataset.json."""
    record = dataset.record() if json_damage(dataset.record_path) is None else {}
    return bool(record.get("settings", {}).get("name") == hole.name)
