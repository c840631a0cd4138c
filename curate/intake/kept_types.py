"""Which types the columns of Parquet lists are kept in, and how they get there.

A list's column keeps its type where every reader of a dataset knows that type. Forms of one thing
become the plain one (string_view, large_string and dictionaries of texts are text, list_view is
list); what Parquet's other readers lose or refuse becomes text: decimals of more than 38 digits,
columns of nulls alone, and those of which two files of the list have different types.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.arrow_columns import readable, to_python
from curate.intake.columns import hash_name

_EXACT = 1 << 53  # every integer up to here is a double of its own


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
