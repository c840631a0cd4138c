"""Which format an input has: by the names of its files, or as the user says."""

from __future__ import annotations

import itertools
import os
from typing import Literal

from curate.base.errors import ConfigError
from curate.intake.folders import is_picture
from curate.intake.locations import Found, Store
from curate.intake.settings import InputFormat
from curate.intake.tars import EXTENSIONS

_KINDS: dict[str, InputFormat] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "text",
}
_KNOWN = (
    ".parquet, .csv, .tsv, .jsonl, .json or .txt (the last five also with .gz), .tar or .tar.gz, "
    "or be a folder of pictures"
)
_LOOKED_AT = 10_000  # files of a folder from which its format is taken
_Named = InputFormat | Literal["picture"] | None


def recognise(
    found: Found, given: str, forced: InputFormat | None
) -> tuple[InputFormat, tuple[str, ...]]:
    """The format, and the files that are read (none for a folder of pictures)."""
    if found.files is not None:
        kinds: dict[_Named, str] = {kind_of(path): path for path in found.files}
        if forced is not None and forced != "folder":
            return forced, found.files
        if forced == "folder" or "picture" in kinds:
            raise ConfigError(f"{given} names pictures one by one; give the folder they are in.")
        return _single(kinds, found.store), found.files
    if forced == "folder":
        return "folder", ()
    paths = list(itertools.islice(found.store.walk(), _LOOKED_AT))
    kinds = {}
    for path in paths:
        kinds.setdefault(kind_of(path), path)
    if forced is None:
        if "webdataset" in kinds:
            forced = "webdataset"
        elif "picture" in kinds:
            return "folder", ()
        else:
            lists: dict[_Named, str] = {k: p for k, p in kinds.items() if k is not None}
            if not lists:
                raise ConfigError(
                    f"The folder {given} holds no list, no tar and no picture; an input must "
                    f"end in {_KNOWN}."
                )
            forced = _single(lists, found.store)
    files = tuple(path for path in found.store.walk() if kind_of(path) == forced)
    if not files:
        raise ConfigError(f"The folder {given} holds no file of the format {forced}.")
    return forced, files


def _single(kinds: dict[_Named, str], store: Store) -> InputFormat:
    if None in kinds:
        raise ConfigError(f"The input {store.show(kinds[None])} must end in {_KNOWN}.")
    if len(kinds) > 1:
        names = " and ".join(store.show(path) for path in sorted(kinds.values())[:2])
        raise ConfigError(f"The input mixes kinds of files ({names}); give one kind.")
    kind = next(iter(kinds))
    if kind is None or kind == "picture":
        raise ConfigError(f"The input must end in {_KNOWN}.")
    return kind


def kind_of(path: str) -> _Named:
    """The format that a file's name says; None for a name that says none."""
    name = os.path.basename(path).lower()
    if name.endswith(EXTENSIONS):
        return "webdataset"
    if is_picture(name):
        return "picture"
    bare = name.removesuffix(".gz")
    kind = _KINDS.get(os.path.splitext(bare)[1])
    # img2dataset's counts of a shard are no list.
    if name.endswith("_stats.json") or (kind == "parquet" and bare != name):
        return None
    return kind
