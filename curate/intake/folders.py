"""A folder of pictures with their texts beside them.

The text of PICTURE.jpg is PICTURE.txt (or .caption), else the text column of PICTURE.json; its URL
and further columns come from PICTURE.json. A `metadata.jsonl`, `metadata.csv` or `captions.jsonl`
(the imagefolder layout of Hugging Face) in the picture's folder gives the same by `file_name`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from curate.intake.columns import FILE_COLUMNS, find_column
from curate.intake.locations import Store
from curate.intake.rows import Record, broken, local_identity, text_problem
from curate.intake.tars import (
    IMAGE_EXTENSIONS,
    Names,
    as_text,
    decode_text,
    not_downloaded,
    parse_sidecar,
)
from curate.intake.text_lists import TextKind, read_text_list
from curate.reasons import Failure, Reason, printable

_TEXTS = (".txt", ".caption")
METADATA: Mapping[str, TextKind] = {
    "metadata.jsonl": "jsonl",
    "metadata.csv": "csv",
    "captions.jsonl": "jsonl",
}


def is_picture(path: str) -> bool:
    """Whether a file's extension is one of a picture."""
    return os.path.splitext(path)[1].lower().lstrip(".") in IMAGE_EXTENSIONS


def read_folder(store: Store, names: Names) -> Iterator[Record]:
    """Every picture below the root in sorted order, then described files that are not there.

    Memory is the names of the largest single folder and the metadata files' rows whose pictures
    have not come yet.
    """
    described: dict[str, dict[str, Any]] = {}
    for folder, files in _by_folder(store):
        yield from _folder(store, folder, files, described, names)
    for path, fields in described.items():
        yield _without_picture(path, fields, names)


def _by_folder(store: Store) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files; a folder comes before those inside it."""
    folder, files = "", list[str]()
    for path in store.walk():
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
    described: dict[str, dict[str, Any]],
    names: Names,
) -> Iterator[Record]:
    here = set(files)
    for name in METADATA:
        if name in here:
            yield from _metadata(store, folder, name, described)
    pictures = [name for name in files if is_picture(name)]
    for name in pictures:
        path = os.path.join(folder, name)
        yield _picture(store, path, here, described.pop(path, {}), names)
    if pictures:
        stems = {os.path.splitext(name)[0] for name in pictures}
        for name in files:
            stem, extension = os.path.splitext(name)
            if extension in _TEXTS and stem not in stems:
                path = os.path.join(folder, name)
                text, _ = _read_text(store, path)
                yield _without_picture(path, {"text": text}, names)


def _metadata(
    store: Store, folder: str, name: str, described: dict[str, dict[str, Any]]
) -> Iterator[Record]:
    """Add the rows of a metadata file to `described`; yield those that describe nothing."""
    where = os.path.join(folder, name)
    for number, found in read_text_list(store, where, METADATA[name]):
        column = None if isinstance(found, Failure) else find_column(found, FILE_COLUMNS)
        file = None if isinstance(found, Failure) or not column else as_text(found[column])
        if isinstance(found, Failure):
            yield broken(where, number, found, file=where)
        elif not file:
            failure = Failure(Reason.UNREADABLE_ROW, f"{name}: no file_name")
            yield broken(where, number, failure, file=where)
        else:
            path = os.path.normpath(os.path.join(folder, file))
            described[path] = {key: value for key, value in found.items() if key != column}


def _picture(
    store: Store, path: str, here: set[str], fields: dict[str, Any], names: Names
) -> Record:
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    problem: str | None = None
    for sidecar in (f"{stem}.json", f"{name}.json"):
        if sidecar in here:
            content, problem = _read(store, os.path.join(folder, sidecar))
            more, wrong = parse_sidecar(content)
            problem = problem or wrong
            fields = {**fields, **more}
            break
    text: str | None = None
    for extension in _TEXTS:
        if stem + extension in here:
            text, wrong = _read_text(store, os.path.join(folder, stem + extension))
            problem = problem or wrong
            break
    url_name, text_name = names(fields)
    url = as_text(fields.get(url_name or "")) or None
    text = as_text(fields.get(text_name or "")) if text is None else text
    problem = problem or text_problem(url, text)
    failure: Failure | None = None
    if problem is not None:
        failure = Failure(Reason.UNREADABLE_ROW, printable(f"{path}: {problem}")[:300])
        url = url if text_problem(url) is None else None
        text = text if text_problem(text) is None else None
    return Record(
        url=url,
        text=text,
        fields={name: v for name, v in fields.items() if name not in (url_name, text_name)},
        identity=None if url else local_identity(path),
        failure=failure,
        file=path,
        key=stem,
        offset=0,
    )


def _without_picture(path: str, fields: Mapping[str, Any], names: Names) -> Record:
    url_name, text_name = names(fields)
    failure = not_downloaded(fields) or Failure(Reason.NO_PICTURE, printable(path)[:300])
    return Record(
        url=as_text(fields.get(url_name or "")) or None,
        text=as_text(fields.get(text_name or "")),
        identity=local_identity(path),
        failure=failure,
        file=path,
    )


def _read(store: Store, path: str) -> tuple[bytes | None, str | None]:
    try:
        with store.open(path) as stream:
            return stream.read((1 << 20) + 1), None
    except OSError as error:
        return None, f"{os.path.basename(path)} cannot be read ({error.strerror or error})"


def _read_text(store: Store, path: str) -> tuple[str | None, str | None]:
    content, problem = _read(store, path)
    return (None, problem) if content is None else decode_text(content)
