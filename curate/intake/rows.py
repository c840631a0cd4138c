"""One record a row of the input, broken or not, and the batches that the shards are cut from.

A batch has the columns

    identity        what the key is hashed from besides the text: the URL, or for a picture without
                    one its place inside the input, as in "file:00012.tar#000120031"
    url, alt_text   exactly as they came; null where there was none
    alt_texts       all texts of the picture, alt_text first, where several came; null for most
    failure, failure_detail     why a row came in broken; null for all others
    source_file, source_key, source_offset, source_bytes    only of pictures that are here already

and then every other column of the input under its own name, with "input_" before a name that would
hide one of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from curate.base.reasons import Failure, Reason
from curate.intake.columns import hash_name
from curate.intake.texts import NoTextError
from curate.store.write_samples import (
    ALT_TEXTS,
    FAILURE,
    FAILURE_DETAIL,
    SOURCE_BYTES,
    SOURCE_FILE,
    SOURCE_KEY,
    SOURCE_OFFSET,
)

IDENTITY = "identity"
OTHER_FIELDS = "other_fields"
"""JSON text of the fields for which there was no column; see curate.intake.column_types."""
LOCAL_COLUMNS = (SOURCE_FILE, SOURCE_KEY, SOURCE_OFFSET, SOURCE_BYTES)
_TEXTS = pa.list_(pa.string())
_FIRST = {IDENTITY: pa.string(), "url": pa.string(), "alt_text": pa.string(), ALT_TEXTS: _TEXTS}
_BROKEN = {FAILURE: pa.string(), FAILURE_DETAIL: pa.string()}
_LOCAL = dict(zip(LOCAL_COLUMNS, (pa.string(), pa.string(), pa.int64(), pa.int64()), strict=True))
_RESERVED = {"key", "row", *_FIRST, *_BROKEN, *_LOCAL, OTHER_FIELDS}


@dataclass(slots=True)
class Record:
    """One row as a reader found it."""

    url: str | None = None
    text: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    identity: str | None = None  # None: the URL
    failure: Failure | None = None
    file: str | None = None  # path inside the input
    key: str | None = None  # the sample's own key there
    offset: int | None = None  # bytes into the (unpacked) file, or rows into a Parquet file
    size: int | None = None  # bytes
    texts: Sequence[str] | None = None  # all of them, `text` first, where they are several
    no_text: NoTextError | None = None  # what stands where the text should


def local_identity(path: str, key: str | None = None) -> str:
    """The identity of a picture without a URL: stable as long as its place in the input is."""
    return f"file:{path}" if key is None else f"file:{path}#{key}"


def texts_given(texts: Sequence[str]) -> dict[str, Any]:
    """A record's `text` and `texts`."""
    return {"text": texts[0] if texts else None, "texts": texts if len(texts) > 1 else None}


def broken(path: str, place: int | str, failure: Failure, **known: Any) -> Record:
    """A record that could not be read; `place` is its line or row number in the file."""
    return Record(identity=f"broken:{path}#{place}", failure=failure, **known)


def own_names(columns: Iterable[str]) -> dict[str, str]:
    """The name that each column of the input has in the shards."""
    names = {column: column for column in columns}
    for column in names:
        own = hash_name(column) or column
        if own != column and own in names.values():
            own = column
        # Shards of ours that are taken in again hold "key" and perhaps "input_key" already.
        while own.lower() in _RESERVED or (own != column and own in names.values()):
            own = f"input_{own}"
        names[column] = own
    return names


@dataclass(frozen=True)
class RowTypes:
    """The columns of batches whose types are known before they are read, as those of Parquet."""

    fields: Mapping[str, pa.DataType]
    local: bool

    def schema(self) -> pa.Schema:
        """Of the batches."""
        names = own_names(self.fields)
        own = {names[name]: kind for name, kind in self.fields.items()}
        local = _LOCAL if self.local else {}
        return pa.schema([*{**_FIRST, **_BROKEN, **local, **own}.items()])

    def batch(self, records: Sequence[Record]) -> pa.RecordBatch:
        """Broken records, of which no field is known."""
        columns = own_columns(records, self.local)
        schema = self.schema()
        nulls = (columns.get(f.name, pa.nulls(len(records), f.type)) for f in schema)
        return pa.RecordBatch.from_arrays(list(nulls), schema=schema)


def own_columns(records: Sequence[Record], local: bool) -> dict[str, pa.Array]:
    """The columns of a batch that are not the input's own; see the module."""
    records = [_storable(record) for record in records]
    columns: dict[str, list[Any]] = {
        IDENTITY: [r.url if r.identity is None else r.identity for r in records],
        "url": [r.url for r in records],
        "alt_text": [r.text for r in records],
        ALT_TEXTS: [r.texts for r in records],
        FAILURE: [r.failure and r.failure.reason.value for r in records],
        FAILURE_DETAIL: [r.failure and (r.failure.detail or None) for r in records],
    }
    if local:
        places = [(r.file, r.key, r.offset, r.size) for r in records]
        columns |= {name: [p[n] for p in places] for n, name in enumerate(LOCAL_COLUMNS)}
    kinds = {**_FIRST, **_BROKEN, **_LOCAL}
    return {name: pa.array(values, kinds[name]) for name, values in columns.items()}


def _storable(record: Record) -> Record:
    """The record with names that can be stored; a file whose name cannot is out of reach later."""
    names = (record.identity, record.file, record.key)
    if all(name is None or encodable(name) for name in names):
        return record
    identity, file, key = (n and n.encode("utf-8", "backslashreplace").decode() for n in names)
    failure = record.failure
    if record.file is not None and not encodable(record.file):
        failure = failure or Failure(Reason.UNREADABLE_FILE, f"its name is no UTF-8: {file}")
    return replace(record, identity=identity, file=file, key=key, failure=failure)


def encodable(text: str) -> bool:
    """Whether it has no lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def text_problem(*values: Any) -> str | None:
    """Why a URL or text cannot be stored letter for letter; None if all can."""
    for value in values:
        if isinstance(value, str) and not encodable(value):
            return "a lone surrogate, which is no character"
    return None
