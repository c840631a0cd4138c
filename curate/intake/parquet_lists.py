"""Parquet with URLs, or with the pictures themselves (the layout of Hugging Face), as batches.

Pictures are a column of bytes, or of structs with `bytes` and `path`; planning reads every column
but the bytes, and a picture is found again by its row. A row group that cannot be read costs its
remaining rows, each of which is counted: the footer says how many they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.reasons import Failure, Reason, printable
from curate.intake.column_types import is_bytes, kept, kept_type, shared_type
from curate.intake.column_types import texts_of as as_texts
from curate.intake.columns import IMAGE_COLUMNS
from curate.intake.locations import Store
from curate.intake.rows import (
    IDENTITY,
    RowTypes,
    broken,
    local_identity,
    own_names,
    texts_given,
)
from curate.intake.tars import not_downloaded
from curate.intake.texts import NoTextError, names_inside, texts_of, value_at
from curate.store.write_samples import (
    ALT_TEXTS,
    FAILURE,
    FAILURE_DETAIL,
    SOURCE_BYTES,
    SOURCE_FILE,
    SOURCE_KEY,
    SOURCE_OFFSET,
)

_COUNTED_ROWS = 1_000_000  # below, the texts of lists are counted


@dataclass(frozen=True)
class ParquetColumns:
    """What the columns of a Parquet input are."""

    schema: pa.Schema  # of all files together
    url: str | None
    text: str | None
    image: str | None  # the pictures' bytes; None for a list of URLs

    def extras(self) -> list[pa.Field]:
        """The columns that are neither URL, text nor picture."""
        return [f for f in self.schema if f.name not in (self.url, self.text, self.image)]

    def texts_are_nested(self) -> bool:
        """Whether a row's texts are a list, or a key inside an object."""
        if self.text is None or self.text not in self.schema.names:
            return self.text is not None
        return bool(pa.types.is_nested(self.schema.field(self.text).type))

    def row_types(self) -> RowTypes:
        """The columns of the batches, to make broken rows of."""
        fields = {f.name: f.type for f in self.extras()}
        return RowTypes(fields, local=self.image is not None)


def open_parquet(store: Store, path: str) -> pq.ParquetFile:
    """Open one file.

    Raises:
        ConfigError: it is no Parquet, or its footer is broken.
    """
    try:
        return pq.ParquetFile(store.arrow_file(path))
    except (OSError, pa.ArrowException) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"{store.show(path)} cannot be read as Parquet: {lines[0]}") from error


def image_column(schema: pa.Schema) -> str | None:
    """The column that holds pictures, if one does."""
    by_lower = {field.name.lower(): field for field in reversed(list(schema))}
    for name in IMAGE_COLUMNS:
        if name in by_lower and _holds_bytes(by_lower[name].type):
            return str(by_lower[name].name)
    return None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_bytes(f.type) for f in kind)
    return is_bytes(kind)


def inner_names(schema: pa.Schema) -> list[str]:
    """The names of keys inside the columns that hold objects, such as "caption.en"."""
    return list(names_inside({field.name: _example(field.type) for field in schema}))


def no_text_in(schema: pa.Schema, text: str | None) -> str | None:
    """Why a column holds no texts (objects, lists of lists); None if it does."""
    if text is None or text not in schema.names:
        return None
    kind = schema.field(text).type
    if pa.types.is_map(kind):
        return f"the text column {text!r} holds maps, whose keys differ from row to row"
    try:
        texts_of(_example(kind), text)
    except NoTextError as error:
        return str(error)
    return None


def _example(kind: pa.DataType) -> Any:
    """A value of this type, as far as lists and objects are concerned."""
    if pa.types.is_struct(kind):
        return {field.name: _example(field.type) for field in kind}
    if pa.types.is_nested(kind) and not pa.types.is_map(kind) and kind.num_fields == 1:
        return [_example(kind.field(0).type)]
    return "" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def text_counts(
    store: Store, paths: list[str], columns: ParquetColumns
) -> tuple[int | None, int | None]:
    """(texts, rows with a text) where rows may have several, from the text column alone."""
    if not columns.texts_are_nested() or row_count(store, paths) > _COUNTED_ROWS:
        return None, None
    texts = rows = 0
    name = str(columns.text)
    for path in paths:
        with open_parquet(store, path) as parquet:
            root = _root(parquet.schema_arrow.names, name)
            if root is None:
                continue
            for batch in parquet.iter_batches(10_000, columns=[root]):
                nothing: list[str | None] = [None] * batch.num_rows
                first, several = _texts(batch, name, nothing, list(nothing))
                alone = len(first) - first.null_count - (len(several) - several.null_count)
                rows += len(first) - first.null_count
                texts += alone + (pc.sum(pc.list_value_length(several)).as_py() or 0)
    return (texts, rows) if texts > rows else (None, None)


def _root(names: list[str], name: str) -> str | None:
    """The column that a name stands for, or in which it lies; None if it is not there."""
    return next((one for one in (name, name.partition(".")[0]) if one in names), None)


def parquet_batches(
    store: Store, path: str, columns: ParquetColumns, rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of one file in order, in batches of at most `rows`; see curate.intake.rows."""
    types = columns.row_types()
    try:
        parquet = open_parquet(store, path)
    except ConfigError as error:  # it was readable when the input was looked at
        damage = Failure(Reason.DAMAGED_SOURCE, printable(str(error))[:300])
        yield types.batch([broken(path, "damage", damage)])
        return
    with parquet:
        names = [n for n in parquet.schema_arrow.names if n != columns.image]
        image = columns.image if columns.image in parquet.schema_arrow.names else None
        has_path = image is not None and _has_path(parquet.schema_arrow.field(image).type)
        wanted = [*names, *([f"{image}.path"] if has_path else [])]
        row = 0
        for group in range(parquet.num_row_groups):
            end = row + parquet.metadata.row_group(group).num_rows
            try:
                for batch in parquet.iter_batches(rows, row_groups=[group], columns=wanted):
                    yield _batch(batch, path, row, columns, types)
                    row += batch.num_rows
                if not wanted:
                    yield _batch(_empty(end - row), path, row, columns, types)
                    row = end
            except (OSError, pa.ArrowException) as error:
                lines = str(error).splitlines() or [type(error).__name__]
                failure = Failure(
                    Reason.DAMAGED_SOURCE, printable(f"row group {group}: {lines[0]}")[:300]
                )
                while row < end:
                    stop = min(end, row + rows)
                    yield types.batch([broken(path, n, failure) for n in range(row, stop)])
                    row = stop


def _has_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(f.name == "path" for f in kind)


def _empty(rows: int) -> pa.RecordBatch:
    return pa.record_batch({"": pa.nulls(rows)})


def _batch(
    batch: pa.RecordBatch, path: str, first: int, columns: ParquetColumns, types: RowTypes
) -> pa.RecordBatch:
    count = batch.num_rows
    url, bad_url = _text(batch, columns.url, count)
    failure: list[str | None] = [None] * count
    detail: list[str | None] = [None] * count
    several = pa.nulls(count, pa.list_(pa.string()))
    bad_text: set[int] = set()
    if columns.texts_are_nested():
        text, several = _texts(batch, str(columns.text), failure, detail)
    else:
        text, bad_text = _text(batch, columns.text, count)
    out: dict[str, pa.Array] = {"url": url, "alt_text": text, ALT_TEXTS: several}
    for position in sorted(bad_url | bad_text):
        failure[position], detail[position] = Reason.UNREADABLE_ROW.value, "bytes that are no UTF-8"
    if columns.image is None:
        out[IDENTITY] = url
    else:
        keys = _keys(batch, columns)
        places = pa.array([local_identity(path, str(first + n)) for n in range(count)])
        has_url = pc.fill_null(pc.not_equal(url, ""), False)
        out[IDENTITY] = pc.if_else(has_url, url, places)
        out["url"] = pc.if_else(has_url, url, pa.scalar(None, pa.string()))
        out[SOURCE_FILE] = pa.repeat(path, count)
        out[SOURCE_KEY] = keys
        out[SOURCE_OFFSET] = pa.array(range(first, first + count), pa.int64())
        out[SOURCE_BYTES] = pa.nulls(count, pa.int64())
        _mark_not_downloaded(batch, failure, detail)
    out[FAILURE] = pa.array(failure, pa.string())
    out[FAILURE_DETAIL] = pa.array(detail, pa.string())
    names = own_names(field.name for field in columns.extras())
    for field in columns.extras():
        if field.name in batch.schema.names:
            column = batch.column(field.name)
            out[names[field.name]] = kept(column, field.type)
        else:
            out[names[field.name]] = pa.nulls(count, field.type)
    schema = types.schema()
    return pa.RecordBatch.from_arrays([out[f.name] for f in schema], schema=schema)


def _text(batch: pa.RecordBatch, name: str | None, count: int) -> tuple[pa.Array, set[int]]:
    """A column as text, and the rows in which it is none."""
    if name is None or _root(batch.schema.names, name) is None:
        return pa.nulls(count, pa.string()), set()
    if name not in batch.schema.names:  # a key inside an object
        inside = (v if isinstance(v, str) else None for v in _values_at(batch, name))
        return pa.array(list(inside), pa.string()), set()
    column = batch.column(name)
    if not is_bytes(column.type) and not pa.types.is_string(column.type):
        column = as_texts(column)
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
        return text, set()
    except pa.ArrowInvalid:
        pass
    values, bad = list[str | None](), set[int]()
    for position, raw in enumerate(column.cast(pa.binary()).to_pylist()):
        try:
            values.append(raw if raw is None else raw.decode("utf-8"))
        except UnicodeDecodeError:
            values.append(None)
            bad.add(position)
    return pa.array(values, pa.string()), bad


def _texts(
    batch: pa.RecordBatch, name: str, failure: list[str | None], detail: list[str | None]
) -> tuple[pa.Array, pa.Array]:
    """First texts, and all texts of rows with several; notes the rows that cannot be read."""
    first, every = list[str | None](), list[Any]()
    for position, value in enumerate(_values_at(batch, name)):
        try:
            texts = texts_of(value, name)
        except NoTextError as error:
            texts, failure[position] = [], Reason.UNREADABLE_ROW.value
            detail[position] = printable(str(error))[:300]
        told = texts_given(texts)
        first.append(told["text"])
        every.append(told["texts"])
    return pa.array(first, pa.string()), pa.array(every, pa.list_(pa.string()))


def _values_at(batch: pa.RecordBatch, name: str) -> Iterator[Any]:
    """A column's values, or those of a key inside it; one that is no UTF-8 costs only itself."""
    root = _root(batch.schema.names, name)
    if root is None:
        yield from [None] * batch.num_rows
        return
    for value in batch.column(root):
        try:
            yield value_at({root: value.as_py()}, name)
        except UnicodeDecodeError:
            yield {"bytes that are no UTF-8": None}


def _keys(batch: pa.RecordBatch, columns: ParquetColumns) -> pa.Array:
    """The samples' own keys: a column `key` or `uid` or `id`, else the picture's path."""
    for name in ("key", "uid", "id", "__key__"):
        if name in batch.schema.names and name not in (columns.url, columns.text):
            kind = batch.schema.field(name).type
            if pa.types.is_string(kind) or pa.types.is_integer(kind):
                return batch.column(name).cast(pa.string())
    if columns.image in batch.schema.names:
        return pc.struct_field(batch.column(columns.image), "path").cast(pa.string())
    return pa.nulls(batch.num_rows, pa.string())


def _mark_not_downloaded(
    batch: pa.RecordBatch, failure: list[str | None], detail: list[str | None]
) -> None:
    """img2dataset's Parquet output holds the rows that it could not fetch."""
    if "status" not in batch.schema.names:
        return
    statuses = batch.column("status").to_pylist()
    said = (
        batch.column("error_message").to_pylist()
        if "error_message" in batch.schema.names
        else [None] * batch.num_rows
    )
    for position, (status, message) in enumerate(zip(statuses, said, strict=True)):
        lost = not_downloaded({"status": status, "error_message": message})
        if lost is not None and failure[position] is None:
            failure[position], detail[position] = lost.reason.value, lost.detail


def row_count(store: Store, paths: list[str]) -> int:
    """Rows of all files, from their footers."""
    total = 0
    for path in paths:
        with open_parquet(store, path) as parquet:
            total += parquet.metadata.num_rows
    return total


def shared_schema(store: Store, paths: list[str]) -> pa.Schema:
    """The columns of all files together.

    Raises:
        ConfigError: a file is no Parquet, or has two columns of one name.
    """
    kinds: dict[str, list[pa.DataType]] = {}
    largest: Counter[str] = Counter()
    for path in paths:
        with open_parquet(store, path) as parquet:
            own = parquet.schema_arrow
            numbers = _largest_integers(parquet)
        if len(set(own.names)) < len(own.names):
            twice = next(name for name in own.names if own.names.count(name) > 1)
            raise ConfigError(f"{store.show(path)} has two columns named {twice!r}; rename one.")
        image = image_column(own)
        for field in own:
            kind = field.type if field.name == image else kept_type(field.type, field.name)
            kinds.setdefault(field.name, []).append(kind)
            largest[field.name] = max(largest[field.name], numbers.get(field.name, 0))
    return pa.schema([(name, shared_type(found, largest[name])) for name, found in kinds.items()])


def _largest_integers(parquet: pq.ParquetFile) -> dict[str, int]:
    """Column -> the greatest magnitude in it, by the footer; 2^63 where that is silent."""
    found: dict[str, int] = {}
    names = {f.name for f in parquet.schema_arrow if pa.types.is_integer(f.type)}
    for group in range(parquet.metadata.num_row_groups if names else 0):
        for place in range(parquet.metadata.num_columns):
            column = parquet.metadata.row_group(group).column(place)
            if column.path_in_schema in names:
                told = column.statistics
                known = told is not None and (
                    told.has_min_max or told.null_count == column.num_values
                )
                ends = (told.min, told.max) if known and told.has_min_max else (0, 0)
                size = max(abs(int(end)) for end in ends) if known else 1 << 63
                found[column.path_in_schema] = max(found.get(column.path_in_schema, 0), size)
    return found
