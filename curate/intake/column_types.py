"""The types of an input's further columns: of lists in text, and of Parquet.

In text they are decided when every value was seen.

While an input is read its columns are kept as text, which holds every value exactly as it came; a
set of kinds of values grows beside each. At the end `typed` turns them into what all their values
are. So no sample of rows decides: a score that is empty for a million rows is a number, an id that
ends in one letter is text to its first row, and a key that first appears in row 5,000 is a column.

A text (of CSV, TSV) is a number only where the number prints as the same text: 007, +5, 1.10, 1e5
and 12345678901234567890 stay text, and a column that mixes 1 and 1.0 does. In a column that is
known as a score every number is one, whatever its spelling, and "nan", "NA", "null" and infinities
are null there. Numbers of JSON are numbers; a column that mixes them with texts is text.

A column of Parquet keeps its type where every reader of a dataset knows that type. Forms of one
thing become the plain one (string_view, large_string and dictionaries of texts are text, list_view
is list); what Parquet's other readers lose or refuse becomes text: decimals of more than 38 digits,
columns of nulls alone, and those of which two files of the list have different types.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.arrow_columns import readable, to_python
from curate.intake.columns import hash_name
from curate.intake.rows import OTHER_FIELDS, Record, encodable, own_columns, own_names

MOST_COLUMNS = 1000
"""Further fields of a row become JSON text in OTHER_FIELDS."""

_INTEGER = re.compile(r"-?[1-9][0-9]{0,18}|0")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
# What pandas and others write where a number is missing, and what is no finite number.
_MISSING = frozenset(
    {"", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nil", "-", "?"}
    | {f"{sign}{word}" for sign in ("", "+", "-") for word in ("nan", "inf", "infinity")}
)
# 2^53: every integer up to here is a double of its own.
_EXACT = 1 << 53

# INT prints as it came, LONG does not as a double. WHOLE is 1.0, FLOAT is 1.5, both
# as Python prints them. LOOSE is a number that is spelled in another way.
_INT, _LONG, _WHOLE, _FLOAT, _LOOSE = "int", "long", "whole", "float", "loose"
_BOOL, _GONE, _TEXT = "bool", "missing", "text"
_NUMBERS = frozenset({_INT, _LONG, _WHOLE, _FLOAT, _LOOSE, _GONE})


class ColumnTypes:
    """The columns of one input, over all of its files."""

    def __init__(self, local: bool, textual: bool, is_score: Callable[[str], bool]) -> None:
        """No column is known yet.

        Args:
            local: see curate.intake.rows.
            textual: values are texts (CSV, TSV), not JSON's.
            is_score: whether a column of this name holds scores.
        """
        self._local, self._textual, self._is_score = local, textual, is_score
        self._kinds: dict[str, set[str]] = {}
        self._others = False

    def see(self, records: Iterable[Record]) -> ColumnTypes:
        """Take note of the values of some records."""
        for record in records:
            for name, value in record.fields.items():
                if not self._has(name):
                    continue
                kinds = self._kinds[name]
                if value is not None and _TEXT not in kinds:
                    kinds.add(self._kind(name, value))
        return self

    def staged(self, records: Sequence[Record]) -> pa.RecordBatch:
        """Records as columns, their fields as text; takes note of their values."""
        self.see(records)
        columns = own_columns(records, self._local)
        for place, name in enumerate(self._kinds):
            texts = [as_text(record.fields.get(name)) for record in records]
            columns[_stage(place)] = pa.array(texts, pa.string())
        others = [self._rest(record.fields) for record in records]
        columns[OTHER_FIELDS] = pa.array(others, pa.string())
        return pa.record_batch(columns)

    def types(self) -> dict[str, pa.DataType]:
        """Column -> its type, as far as values were seen."""
        return {name: self._type(name, kinds) for name, kinds in self._kinds.items()}

    def typed(self, table: pa.Table) -> pa.Table:
        """A staged table under its own names and types; it may lack columns that came later."""
        columns = {name: table.column(name) for name in table.column_names}
        others = columns.pop(OTHER_FIELDS)
        staged = [columns.pop(_stage(place), None) for place in range(len(self._kinds))]
        names = own_names(self._kinds)
        for (name, kind), column in zip(self.types().items(), staged, strict=True):
            columns[names[name]] = (
                pa.nulls(table.num_rows, kind) if column is None else _cast(column, kind)
            )
        if self._others:
            columns[OTHER_FIELDS] = others
        return pa.table(columns)

    def _has(self, name: str) -> bool:
        if name in self._kinds:
            return True
        if len(self._kinds) >= MOST_COLUMNS or not encodable(name):
            self._others = True
            return False
        self._kinds[name] = set()
        return True

    def _rest(self, fields: Mapping[str, Any]) -> str | None:
        if not self._others:
            return None
        rest = {name: value for name, value in fields.items() if name not in self._kinds}
        return json.dumps(rest, ensure_ascii=True, default=str) if rest else None

    def _kind(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            if self._is_score(name):
                return _text_kind(value, loose=True)
            return _text_kind(value, loose=False) if self._textual else _TEXT
        if isinstance(value, bool):
            return _BOOL
        if isinstance(value, int):
            return _integer_kind(value)
        if isinstance(value, float):
            return _FLOAT if math.isfinite(value) else _GONE
        return _TEXT

    def _type(self, name: str, kinds: set[str]) -> pa.DataType:
        if not kinds or hash_name(name) is not None:
            return pa.string()
        if kinds == {_BOOL}:
            return pa.bool_()
        if kinds <= {_INT, _LONG} or (self._is_score(name) and kinds <= {_INT, _LONG, _GONE}):
            return pa.int64() if kinds != {_GONE} else pa.float64()
        if self._is_score(name):
            return pa.float64() if kinds <= _NUMBERS else pa.string()
        exact = kinds <= {_WHOLE, _FLOAT} or kinds <= {_INT, _FLOAT}
        if exact or (not self._textual and kinds <= {_INT, _FLOAT, _GONE}):
            return pa.float64()
        return pa.string()


def as_text(value: Any) -> str | None:
    """A field as text: a text as it is, anything else as JSON writes it."""
    if value is None:
        return None
    if isinstance(value, str) and encodable(value):
        return value
    return json.dumps(value, ensure_ascii=True, default=str)


def score_numbers(texts: Iterable[str | None]) -> list[float | None] | None:
    """Texts of scores as finite numbers, null where one is missing; None if one is no number."""
    numbers: list[float | None] = []
    for text in texts:
        if text is not None and _text_kind(text, loose=True) == _TEXT:
            return None
        numbers.append(_number(text))
    return numbers


def _stage(place: int) -> str:
    return f"field {place}"


def _integer_kind(value: int) -> str:
    if abs(value) <= _EXACT:
        return _INT
    return _LONG if -(1 << 63) <= value < 1 << 63 else _TEXT


def _text_kind(text: str, loose: bool) -> str:
    if _INTEGER.fullmatch(text):
        kind = _integer_kind(int(text))
        return _LOOSE if loose and kind == _TEXT else kind
    if _NUMBER.fullmatch(text):
        number = float(text)
        if math.isfinite(number) and repr(number) == text:
            return _WHOLE if text.endswith(".0") else _FLOAT
    if not loose:
        return _TEXT
    bare = text.strip()
    if bare.lower() in _MISSING:
        return _GONE
    return _LOOSE if _NUMBER.fullmatch(bare) else _TEXT


def _number(text: str | None) -> float | None:
    bare = (text or "").strip()
    if not _NUMBER.fullmatch(bare):
        return None
    number = float(bare)
    return number if math.isfinite(number) else None


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if kind == pa.string():
        return column
    texts = column.to_pylist()
    values: list[Any]
    if kind == pa.bool_():
        values = [None if text is None else text == "true" for text in texts]
    elif kind == pa.int64():
        values = [int(t) if t is not None and _INTEGER.fullmatch(t) else None for t in texts]
    else:
        values = [_number(text) for text in texts]
    return pa.chunked_array([pa.array(values, kind)])


# ---- of Parquet lists ----------------------------------------------------------------------------


def kept_type(kind: pa.DataType, name: str = "") -> pa.DataType:
    """The type that a column of this type is kept in; `name` tells hashes, which are text."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind.extension_name == "arrow.uuid" else kept_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return kept_type(kind.value_type, name)
    if hash_name(name) is not None or types.is_null(kind) or types.is_decimal256(kind):
        return pa.string()
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if is_bytes(kind):
        return pa.binary()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, kept_type(f.type)) for f in kind])
    if types.is_map(kind):
        return pa.map_(kept_type(kind.key_type), kept_type(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(kept_type(kind.value_type))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.list_(kept_type(kind.value_type))
    return kind


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, in any of Arrow's forms."""
    forms = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(form(kind) for form in forms) or bool(pa.types.is_fixed_size_binary(kind))


def shared_type(kinds: Sequence[pa.DataType], largest: int) -> pa.DataType:
    """One type for the columns of one name of several files: theirs, a wider one, or text.

    Args:
        largest: the greatest magnitude of an integer in them.
    """
    if len(set(kinds)) == 1:
        return kinds[0]
    try:
        schemas = [pa.schema([("", kind)]) for kind in kinds]
        wider = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()
    exact = {pa.types.is_floating(k) or pa.types.is_integer(k) for k in kinds} == {True}
    if pa.types.is_floating(wider) and not (exact and largest <= _EXACT):
        return pa.string()
    return wider


def kept(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column in the type that it is kept in; texts that are no UTF-8 get replacement marks."""
    if isinstance(column, pa.ExtensionArray) and not pa.types.is_string(kind):
        column = column.storage
    if pa.types.is_string(kind):
        return texts_of(column)
    if column.type == kind and not pa.types.is_nested(kind):
        return column
    try:
        converted = column.cast(kind)
        converted.validate(full=True)
    except pa.ArrowException:
        return pa.array(to_python(column), kind)
    return converted


def texts_of(column: pa.Array) -> pa.Array:
    """Any column as text: lists and structs as JSON, bytes as `readable` shows them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    elif pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    elif isinstance(column, pa.ExtensionArray):
        uuids = column.type.extension_name == "arrow.uuid"
        column = pa.array([v and str(v) for v in column.to_pylist()]) if uuids else column.storage
    kind = column.type
    if is_bytes(kind):
        shown = [None if raw is None else readable(raw) for raw in column.to_pylist()]
        return pa.array(shown, pa.string())
    if pa.types.is_nested(kind):
        texts = [None if v is None else json.dumps(v, default=readable) for v in to_python(column)]
        return pa.array(texts, pa.string())
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowException:
        text = pa.array([None if v is None else str(v) for v in to_python(column)], pa.string())
    return text
