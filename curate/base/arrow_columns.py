"""Batches of NumPy columns to Arrow and back, with NaN for null on the NumPy side.

No NaN and no infinity reaches Arrow: whatever a model or a head made of a sample, a number that is
none is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def to_arrow(
    column: Any, known: NDArray[np.bool_] | None = None, kind: pa.DataType | None = None
) -> pa.Array:
    """A column of B rows as Arrow.

    Args:
        column: a list, a pyarrow array, or a NumPy array (B,) or (B, ...), where a number that is
            not finite, or a row with one in it, is null.
        known: (B,) rows to keep; the others become null. None keeps all.
        kind: list or binary type of a (B, ...) array: one list, or the bytes, a row.
    """
    if isinstance(column, np.ndarray) and column.ndim > 1:
        valid = np.ones(len(column), bool) if known is None else known.copy()
        flat = np.ascontiguousarray(column.reshape(len(column), math.prod(column.shape[1:])))
        if flat.dtype.kind == "f":
            valid &= np.isfinite(flat).all(axis=1)
        return _rows_to_arrow(flat, valid, kind or pa.list_(pa.from_numpy_dtype(flat.dtype)))
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    elif isinstance(column, np.ndarray):
        column = pa.array(column, from_pandas=True)
    elif not isinstance(column, pa.Array):
        column = pa.array(column)
    if known is not None and not known.all():
        column = pc.if_else(pa.array(known), column, pa.scalar(None, column.type))
    return finite_or_null(column)


def finite_or_null(column: Any) -> Any:
    """An Arrow array with null for NaN and infinities; one of another type as it is."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def _rows_to_arrow(flat: NDArray[Any], valid: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    width = flat.shape[1]
    if pa.types.is_binary(kind):
        values = pa.py_buffer(np.ascontiguousarray(flat[valid]))
        offsets = np.concatenate([[0], np.cumsum(np.where(valid, width, 0))]).astype(np.int32)
        bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
        buffers = [bitmap, pa.py_buffer(offsets), values]
        return pa.BinaryArray.from_buffers(kind, len(flat), buffers)
    offsets = np.concatenate([[0], np.cumsum(np.where(valid, width, 0))]).astype(np.int32)
    values = pa.array(flat[valid].ravel().astype(kind.value_type.to_pandas_dtype()))
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~valid))


def to_numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """A column as NumPy; lists of one length as (B, D) float32, with rows of NaN for null, and for
    a list in which a number is not finite."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_list(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    width = int(np.max(array.value_lengths().fill_null(0).to_numpy(), initial=0))
    out = np.full((len(array), width), np.nan, np.float32)
    if width:
        filled = array.is_valid().to_numpy(zero_copy_only=False)
        out[filled] = array.flatten().to_numpy().reshape(-1, width).astype(np.float32)
        out[~np.isfinite(out).all(axis=1)] = np.nan
    return out


def to_python(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """`to_pylist` that fails for no value: what Python has no type for comes as text.

    Such are dates outside the years 1 to 9999, durations above a billion days, and texts that are
    no UTF-8.
    """
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_scalar(scalar) for scalar in column]
    return values


def readable(value: Any) -> str:
    """A value that JSON does not know as text; of bytes their letters, or else hex digits."""
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace")
        return text if text.isprintable() and value.isascii() else value.hex()
    return str(value)


def _scalar(scalar: pa.Scalar) -> Any:
    if not scalar.is_valid:
        return None
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
    except (ValueError, OverflowError):
        pass
    if isinstance(scalar, pa.MapScalar):
        return [[_scalar(pair["key"]), _scalar(pair["value"])] for pair in scalar.values]
    if pa.types.is_struct(scalar.type):
        return {name: _scalar(part) for name, part in scalar.items()}
    if pa.types.is_nested(scalar.type):
        return [_scalar(part) for part in scalar.values]
    return _written(scalar)


def _written(scalar: pa.Scalar) -> str:
    """A moment as date and time, in years as large as they come; anything else with its unit."""
    kind = scalar.type
    unit: Any = {pa.date32(): "D", pa.date64(): "ms"}.get(kind) or getattr(kind, "unit", "")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moment = str(np.datetime64(scalar.value, unit)).replace("T", " ")
        return moment + ("Z" if getattr(kind, "tz", None) else "")
    return f"{scalar.value} {unit}".strip()


def bytes_to_numpy(
    column: pa.ChunkedArray, shape: tuple[int, ...], dtype: Any = np.uint8
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Binary rows of one size as (B, *shape), zeros where null, and which rows are not null."""
    array = column.combine_chunks()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    out = np.zeros((len(array), *shape), dtype)
    if valid.any():
        present = array.drop_null()
        offsets = np.frombuffer(present.buffers()[1], np.int32)[present.offset :]
        start, stop = int(offsets[0]), int(offsets[len(present)])
        flat = np.frombuffer(present.buffers()[2], dtype)[start:stop]
        out[valid] = flat.reshape(-1, *shape)
    return out, valid


def merged(pieces: Sequence[pa.Table], keys: Sequence[str]) -> pa.Table:
    """Tables with a `key` column as one, with the rows of `keys` in that order.

    Columns are those of all pieces, in the order in which they first occur. Where several pieces
    hold a row's column, the last one counts; where none does, the value is null.
    """
    names = list(dict.fromkeys(name for piece in pieces for name in piece.column_names))
    places = [
        {key: row for row, key in enumerate(piece.column("key").to_pylist())} for piece in pieces
    ]
    columns: dict[str, Any] = {"key": pa.array(keys, pa.string())}
    known: dict[tuple[int, ...], pa.Array] = {}
    for name in names:
        if name == "key":
            continue
        holders = [number for number, piece in enumerate(pieces) if name in piece.column_names]
        if tuple(holders) not in known:
            known[tuple(holders)] = _rows(
                [pieces[n].num_rows for n in holders], [places[n] for n in holders], keys
            )
        kind = pieces[holders[-1]].schema.field(name).type
        chunks = [
            chunk for number in holders for chunk in pieces[number].column(name).cast(kind).chunks
        ]
        columns[name] = pa.chunked_array(chunks, kind).take(known[tuple(holders)])
    return pa.table(columns)


def _rows(
    sizes: Sequence[int], places: Sequence[Mapping[str, int]], keys: Sequence[str]
) -> pa.Array:
    """Row of each key among pieces that stand one behind the other; the last piece counts."""
    rows: list[int | None] = [None] * len(keys)
    start = 0
    for size, place in zip(sizes, places, strict=True):
        for index, key in enumerate(keys):
            if key in place:
                rows[index] = start + place[key]
        start += size
    return pa.array(rows, pa.int64())


def key_array(column: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Keys as (N,) S32: 32 bytes each in place of a Python string's 80."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype="S32")
