"""What a file holds beside what it should hold, in words: schemas, lists of keys, tars' members."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curate.base.errors import DatasetError
from curate.base.files import read_json
from curate.base.telling.words import amount
from curate.store.contract import ADDED_LATER, SCHEMA_VERSIONS, SCHEMAS
from curate.store.dataset import Dataset


def tar_members(path: Path) -> Iterator[tuple[str, set[str]]]:
    """(key, extensions) of every sample of a tar, whose end has to be there."""
    size = path.stat().st_size
    key, extensions = None, set[str]()
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # or it remembers all of them
            name, _, extension = member.name.partition(".")
            if name != key and key is not None:
                yield key, extensions
                extensions = set()
            key = name
            if member.offset_data + member.size > size:
                raise tarfile.ReadError("it ends inside a picture")
            extensions.add(extension)
    if key is not None:
        yield key, extensions


def unlike(found: pa.Schema, table: str) -> str | None:
    """How a file's schema differs from its table's declared one; None where it does not."""
    version = SCHEMA_VERSIONS[table]
    said = (found.metadata or {}).get(b"caplab_schema_version", b"?").decode()
    if said != str(version):
        return f"is of schema version {said}, not {version}"
    for field in SCHEMAS[table]:
        if field.name not in found.names:
            if field.name in ADDED_LATER.get(table, ()):
                continue
            return f"lacks the column {field.name}"
        if found.field(field.name).type != field.type:
            return f"has {field.name} as {found.field(field.name).type}, not {field.type}"
    return None


def other_keys(found: list[str], expected: list[str]) -> str:
    """Two lists of keys that are not the same, in words."""
    if len(found) != len(expected):
        return f"{amount(len(found), 'row')}, not the {len(expected):,}"
    return "other rows than those" if set(found) != set(expected) else "in another order the rows"


def are_cut_so(dataset: Dataset, shard: str, rows: list[int]) -> bool:
    """Whether these are the rows of a shard, as far as the record of its list tells."""
    try:
        records = map(read_json, dataset.list_records())
        before = [r for r in records if int(r.get("first_shard", 0)) <= int(shard)]
        size, listed = int(before[-1]["rows_per_shard"]), int(before[-1]["rows"])
        joined = int(before[-1].get("first_shard", 0))
    except (DatasetError, IndexError, KeyError, TypeError, ValueError):
        return True  # the record is a hole of its own
    start = (int(shard) - joined) * size
    stop = min(start + size, listed)
    if not joined:
        return rows == list(range(start, stop))
    # Of a list that joined, the rows that were new.
    return len(rows) == stop - start and rows == sorted(set(rows))
