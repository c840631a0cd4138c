"""What a file holds beside what it should hold, in words: schemas, lists of keys, tars' members."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curate.store.contract import ADDED_LATER, SCHEMA_VERSIONS, SCHEMAS


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
        return f"{len(found):,} rows, not the {len(expected):,}"
    return "other rows than those" if set(found) != set(expected) else "in another order the rows"
