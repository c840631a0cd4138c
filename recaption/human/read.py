"""Texts in files, as they are given: a folder of .txt files, or a list that names pictures.

    FOLDER/**/NAME.txt (.caption)     the text of the picture NAME, NAME.jpg or the sample KEY
    *.jsonl, *.csv, *.tsv, *.parquet  (alone: also .json) a row a picture: its key, file name or URL
                                      in a column of that name, and its text or list of texts

Text files are UTF-8, or what their byte order mark or the user says. A text is stored without blank
ends and with plain line ends. What cannot be read is a text that was left out, with its reason.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.reasons import Failure, printable
from curate.intake.columns import FILE_COLUMNS, KEY_COLUMNS, TEXT_COLUMNS, URL_COLUMNS, find_column
from curate.intake.folders import is_hidden
from curate.intake.locations import Store, locate
from curate.intake.parquet_lists import open_parquet
from curate.intake.rows import encodable, text_problem
from curate.intake.text_form import Chunks, check_encoding, refuse_other_encodings
from curate.intake.text_lists import TextKind, read_text_list
from curate.intake.texts import (
    NoTextError,
    find_name,
    several,
    texts_of,
    value_at,
    with_spelled,
)
from recaption.gates.characters import readable

EMPTY, UNREADABLE, NO_NAME = "empty", "unreadable", "names_no_picture"

# What a person wrote stands before what came with the picture.
_TEXTS = ("human", "caption", "captions", "text", "texts", "txt", *TEXT_COLUMNS)
_FILES = (".txt", ".caption")
_LISTS: Mapping[str, TextKind | None] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": None,
}
_KEY = re.compile(r"[0-9a-f]{32}")
_MOST_BYTES = 1 << 20  # of a text file
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Given:
    """The texts that one file or row gives, or why it gives none, and whose they are.

    Attributes:
        place: the file, or file and row.
        texts: in their order, without blank ones and repeats.
        key, file, url: of the picture. `file` has plain slashes, and of NAME.txt no extension.
        problem, detail: why there is no text.
    """

    place: str
    texts: tuple[str, ...] = ()
    key: str | None = None
    file: str | None = None
    url: str | None = None
    problem: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class TextsGiven:
    """A folder or list of texts that was looked at; iterating reads it from front to back."""

    store: Store
    files: tuple[str, ...] | None
    text_column: str | None
    encoding: str | None

    @property
    def address(self) -> str:
        """Where it lies, absolute."""
        return self.store.show(self.files[0]) if self.files else self.store.show()

    @property
    def name(self) -> str:
        """Its last name in letters that a source may have."""
        last = self.address.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gz")
        stem = os.path.splitext(last)[0] if self.files else last
        return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "texts"

    def __iter__(self) -> Iterator[Given]:
        for path in self.files if self.files is not None else self.store.walk():
            if is_hidden(path):
                continue
            if self.files is None and _ending(path) in _FILES:
                yield _text_file(self.store, path, self.encoding)
            elif _ending(path) in _LISTS or self.files is not None:
                yield from self._list(path)

    def _list(self, path: str) -> Iterator[Given]:
        kind = _LISTS.get(_ending(path), "json")
        if kind is None:
            yield from self._parquet(path)
            return
        if self.encoding is None:
            refuse_other_encodings(self.store, path)
        for number, found in read_text_list(self.store, path, kind, self.encoding):
            if isinstance(found, Failure):
                place = path if number < 0 else f"{path}:{number}"
                yield Given(place, problem=found.reason.value, detail=found.detail)
                continue
            if kind in ("csv", "tsv"):
                found = with_spelled(found, find_name(found, self._text_names()))
            yield self._row(path, number, found)

    def _parquet(self, path: str) -> Iterator[Given]:
        number = 0
        try:
            with open_parquet(self.store, path) as parquet:
                # Pictures that lie in the same file are not read.
                columns = [f.name for f in parquet.schema_arrow if "binary" not in str(f.type)]
                for batch in parquet.iter_batches(_ROWS, columns=columns):
                    for fields in batch.to_pylist():
                        number += 1
                        yield self._row(path, number, fields)
        except (OSError, ConfigError, pa.ArrowException, ValueError) as error:
            told = printable(str(error).splitlines()[0])[:300]
            yield Given(path, problem=UNREADABLE, detail=f"after row {number}: {told}")

    def _text_names(self) -> tuple[str, ...]:
        return (self.text_column.lower(),) if self.text_column else _TEXTS

    def _row(self, path: str, number: int, fields: Mapping[str, Any]) -> Given:
        place = f"{path}:{number}"
        key, file, url = (
            _said(fields, names) for names in (KEY_COLUMNS, FILE_COLUMNS, URL_COLUMNS)
        )
        if file is not None:
            file = _same(os.path.join(os.path.dirname(path), file))
        names: dict[str, Any] = {"key": key, "file": file, "url": url}
        if not any(names.values()):
            columns = ", ".join(map(str, fields)) or "none"
            detail = f"its columns are {columns}; it needs key, file_name or url"
            return Given(place, problem=NO_NAME, detail=printable(detail)[:300])
        column = find_name(fields, self._text_names())
        try:
            said = texts_of(value_at(fields, column), column)
        except NoTextError as error:
            return Given(place, **names, problem=UNREADABLE, detail=str(error))
        if (problem := text_problem(*said)) is not None:
            return Given(place, **names, problem=UNREADABLE, detail=problem)
        texts = _told(said)
        if not texts:
            detail = f"the column {column!r} is empty" if column else "there is no column of texts"
            return Given(place, **names, problem=EMPTY, detail=detail)
        return Given(place, texts, **names)


def look_at_texts(given: str, text_column: str | None, encoding: str | None) -> TextsGiven:
    """Find the files; reads none.

    Raises:
        ConfigError: nothing is there, or a file that is no list.
    """
    if encoding is not None:
        check_encoding(encoding)
    found = locate(given)
    for path in found.files or ():
        if _ending(path) not in (*_LISTS, ".json"):
            raise ConfigError(
                f"{found.store.show(path)} must be a folder of .txt files, or a list that ends in "
                f"{', '.join((*_LISTS, '.json'))}."
            )
    return TextsGiven(found.store, found.files, text_column, encoding)


def _text_file(store: Store, path: str, encoding: str | None) -> Given:
    stem = _same(os.path.splitext(path)[0])
    base = stem.rpartition("/")[2]
    if not encodable(path):
        return Given(printable(path), problem=UNREADABLE, detail="its name is no UTF-8")
    names: dict[str, Any] = {"file": stem, "key": base if _KEY.fullmatch(base) else None}
    chunks, content = Chunks(store, path, encoding), b""
    for chunk in chunks:
        content += chunk
        if len(content) > _MOST_BYTES:
            return Given(
                path, **names, problem=UNREADABLE, detail=f"it has more than {_MOST_BYTES:,} bytes"
            )
    if chunks.damage is not None:
        return Given(path, **names, problem=UNREADABLE, detail=printable(chunks.damage)[:300])
    try:
        texts = _told([content.decode("utf-8-sig")])
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} is no UTF-8; say --encoding, such as cp1252"
        return Given(path, **names, problem=UNREADABLE, detail=detail)
    if not texts:
        return Given(path, **names, problem=EMPTY)
    return Given(path, texts, **names)


def _told(texts: list[str]) -> tuple[str, ...]:
    """Without what is not seen: control characters, marks, carriage returns, blank ends."""
    plain = (readable(text.replace("\r\n", "\n").replace("\r", "\n")) for text in texts)
    kept = several([text.strip() for text in plain])
    return tuple(text for text in kept if any(map(str.isalnum, text)))


def _said(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    column = find_column(fields, names)
    value = None if column is None else fields[column]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value and encodable(value) else None


def _same(path: str) -> str:
    """One spelling for a path, as `curate.intake.folders` has it."""
    return os.path.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))


def _ending(path: str) -> str:
    return os.path.splitext(path.lower().removesuffix(".gz"))[1]
