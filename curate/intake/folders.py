"""A folder of pictures with their texts beside them.

The text of PICTURE.jpg is PICTURE.txt (or .caption), else the text column of PICTURE.json; its URL
and further columns come from PICTURE.json. A `metadata.jsonl`, `metadata.csv`, `metadata.parquet`
or `captions.jsonl` (the imagefolder layout of Hugging Face) in the picture's folder, or in one
above it, gives the same by `file_name`. Several texts for one picture are several captions of it;
two lines that say different things of it otherwise are two rows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.reasons import Failure, Reason, printable
from curate.intake.columns import FILE_COLUMNS, find_column
from curate.intake.left_out import LeftOut, Why
from curate.intake.locations import Store
from curate.intake.parquet_lists import open_parquet
from curate.intake.rows import Record, broken, local_identity
from curate.intake.tars import (
    IMAGE_EXTENSIONS,
    Names,
    decode_text,
    not_downloaded,
    parse_sidecar,
    sidecar_row,
)
from curate.intake.text_lists import TextKind, read_text_list
from curate.intake.texts import NoTextError, several, texts_of, value_at, with_spelled

_TEXTS = (".txt", ".caption")
METADATA: Mapping[str, TextKind | Literal["parquet"]] = {
    "metadata.jsonl": "jsonl",
    "metadata.csv": "csv",
    "metadata.parquet": "parquet",
    "captions.jsonl": "jsonl",
}
_Described = dict[str, list[dict[str, Any]]]
"""Path of a picture -> what metadata says of it: one mapping of fields for each of its rows."""


def is_picture(path: str) -> bool:
    """Whether a file's extension is one of a picture."""
    return os.path.splitext(path)[1].lower().lstrip(".") in IMAGE_EXTENSIONS


def read_folder(store: Store, names: Names, left_out: LeftOut | None = None) -> Iterator[Record]:
    """Every picture below the root in sorted order, then described files that are not there.

    Memory is the names of the largest single folder and the metadata files' rows whose pictures
    have not come yet.

    Args:
        left_out: takes the files that become no row and no part of one.
    """
    left_out = left_out or LeftOut()
    described: _Described = {}
    for folder, files in _by_folder(store, left_out):
        yield from _folder(store, folder, files, described, names, left_out)
    for path, rows in described.items():
        why = f"{path} is there, but its metadata must lie in its folder or in one above it"
        for fields in rows:
            yield _without_picture(path, fields, [], names, why if _exists(store, path) else "")


def _exists(store: Store, path: str) -> bool:
    try:
        store.state(path)
    except (OSError, ValueError):  # ValueError: a name with a null character
        return False
    return True


def _by_folder(store: Store, left_out: LeftOut) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files; a folder comes before those inside it."""
    folder, files = "", list[str]()
    for path in store.walk(hidden=True):
        if is_hidden(path):
            left_out.note(Why.HIDDEN, path)
            continue
        where, name = os.path.split(path)
        if where != folder:
            if files:
                yield folder, files
            folder, files = where, []
        files.append(name)
    if files:
        yield folder, files


def _folder(
    store: Store,
    folder: str,
    files: list[str],
    described: _Described,
    names: Names,
    left_out: LeftOut,
) -> Iterator[Record]:
    here = _Beside(store, folder, files)
    for name in METADATA:
        if name in here:
            here.used.add(name)
            yield from _metadata(store, folder, name, described, names)
    pictures = [name for name in files if is_picture(name)]
    for name in pictures:
        for fields in described.pop(_same(os.path.join(folder, name)), [{}]):
            yield _picture(here, name, fields, names)
    for name in files:
        if is_picture(name) or name in here.used:
            continue
        path = os.path.join(folder, name)
        if pictures and os.path.splitext(name)[1].lower() in _TEXTS:
            text, _ = here.text(name)
            yield _without_picture(path, {}, [] if text is None else [text], names)
        else:
            left_out.note(Why.OTHER_FILE, path)


class _Beside:
    """The files of one folder, and which of them were a picture's text or JSON."""

    def __init__(self, store: Store, folder: str, files: Sequence[str]) -> None:
        self._store, self.folder = store, folder
        # A.TXT is the text of A.jpg, though not that of a.jpg.
        self._names = {_folded(name): name for name in reversed(files)}
        self._names |= {name: name for name in files}
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def of(self, picture: str, extension: str) -> str | None:
        """The file with this extension that belongs to a picture: A.txt or A.jpg.txt."""
        stem = os.path.splitext(picture)[0]
        for base in (stem, picture):
            found = self._names.get(base + extension)
            if found is not None:
                self.used.add(found)
                return found
        return None

    def content(self, name: str) -> tuple[bytes | None, str | None]:
        """A file's bytes (the first MiB and one more), or why there are none."""
        try:
            with self._store.open(os.path.join(self.folder, name)) as stream:
                return stream.read((1 << 20) + 1), None
        except OSError as error:
            return None, f"{name} cannot be read ({error.strerror or error})"

    def text(self, name: str) -> tuple[str | None, str | None]:
        """A file's text, or why there is none."""
        content, problem = self.content(name)
        return (None, problem) if content is None else decode_text(content)


def _folded(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem + extension.lower()


def _same(path: str) -> str:
    """One spelling for a path: macOS takes accents apart, Windows has other slashes."""
    return os.path.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder above it, starts with a dot, or is macOS' copy of attributes."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


# ---- metadata ---------------------------------------------------------------------------------


def _metadata(
    store: Store, folder: str, name: str, described: _Described, names: Names
) -> Iterator[Record]:
    """Add the rows of a metadata file to `described`; yield those that describe nothing."""
    where = os.path.join(folder, name)
    for number, found in _metadata_rows(store, where, METADATA[name]):
        column = None if isinstance(found, Failure) else find_column(found, FILE_COLUMNS)
        if isinstance(found, Failure):
            yield broken(where, "damage" if number < 0 else number, found, file=where)
        elif column is None or not isinstance(found[column], str) or not found[column]:
            failure = Failure(Reason.UNREADABLE_ROW, f"{name}: no file_name")
            yield broken(where, number, failure, file=where)
        else:
            # An absolute path, where a tool wrote one, may lie in this folder all the same.
            file = found[column].removeprefix(f"{store.root}/" if not folder else "")
            rows = described.setdefault(_same(os.path.join(folder, file)), [])
            fields = {key: value for key, value in found.items() if key != column}
            if METADATA[name] == "csv":
                fields = dict(with_spelled(fields, names(fields)[1]))
            if not any(_joined(row, fields, names) for row in rows):
                rows.append(fields)


def _metadata_rows(
    store: Store, path: str, kind: TextKind | Literal["parquet"]
) -> Iterator[tuple[int, Mapping[str, Any] | Failure]]:
    if kind != "parquet":
        yield from read_text_list(store, path, kind)
        return
    number = 0
    try:
        with open_parquet(store, path) as parquet:
            for batch in parquet.iter_batches(10_000):
                for fields in _readable(batch).to_pylist():
                    number += 1
                    yield number, fields
    except (OSError, ConfigError, pa.ArrowException, ValueError, OverflowError) as error:
        why = f"{os.path.basename(path)} after row {number}: {error}".splitlines()[0]
        yield -1, Failure(Reason.DAMAGED_SOURCE, printable(why)[:300])


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Dates and times as text: Python's types do not hold all of them, and JSON none."""
    columns = [
        column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _joined(row: dict[str, Any], more: Mapping[str, Any], names: Names) -> bool:
    """Add a further line on one picture to its row, if the two agree in all but the text."""
    _, own = names(row)
    _, other = names(more)
    shared = (row.keys() & more.keys()) - {own, other}
    if any(row[name] != more[name] for name in shared) or (own and other and own != other):
        return False
    try:
        texts = [*texts_of(value_at(row, own), own), *texts_of(value_at(more, other), other)]
    except NoTextError:
        return False
    if "." in f"{own or ''}{other or ''}":  # a key inside an object
        return False
    text_name = own or other
    row |= {name: value for name, value in more.items() if row.get(name) is None}
    if text_name is not None:
        told = several(texts) or texts[:1]
        row[text_name] = told if len(told) > 1 else told[0] if told else None
    return True


# ---- rows -------------------------------------------------------------------------------------


def _picture(here: _Beside, name: str, fields: Mapping[str, Any], names: Names) -> Record:
    path = os.path.join(here.folder, name)
    problem: str | None = None
    sidecar = here.of(name, ".json")
    if sidecar is not None:
        content, problem = here.content(sidecar)
        more, wrong = parse_sidecar(content)
        problem = problem or wrong
        fields = {**fields, **more}
    beside = []
    for extension in _TEXTS:
        file = here.of(name, extension)
        if file is not None:
            text, wrong = here.text(file)
            problem = problem or wrong
            beside += [] if text is None else [text]
    told = sidecar_row(path, fields, beside, problem, names)
    return Record(
        **told,
        identity=None if told["url"] else local_identity(path),
        file=path,
        key=os.path.splitext(name)[0],
        offset=0,
    )


def _without_picture(
    path: str, fields: Mapping[str, Any], beside: Sequence[str], names: Names, why: str = ""
) -> Record:
    told = sidecar_row(path, fields, beside, None, names)
    failure = not_downloaded(fields) or Failure(Reason.NO_PICTURE, printable(why or path)[:300])
    return Record(**{**told, "failure": failure}, identity=local_identity(path), file=path)
