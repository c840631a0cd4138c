"""LAION's two AutoKeras NSFW heads, read from their archives without TensorFlow.

An archive holds a SavedModel: `saved_model.pb`, a protocol buffer with the graph and its constants,
and the variables as a tensor bundle (an index that is a LevelDB table of protocol buffers, and one
file of raw numbers). Both formats are read here as far as these two files need it: no compression,
one data file. Nothing in the archive is executed.

What the graph does with an embedding (L/14: 768 numbers, B/32: 512):

    five columns of L/14 (180, 316, 413, 440, 644) and three of B/32 (92, 133, 312) were taken for
    categories: the number is written with six decimals and looked up in a vocabulary; its place,
    from 1, stands for it, and 0 for a number that is not there
    (x - mean) / max(sqrt(variance), 1e-7)
    dense layers with ReLU, the last one with a sigmoid

Ports of these heads feed such columns as numbers. That is nearly what the graph does with a number
outside the vocabulary (0 lies as far below a mean of 300 to 1,200 as any cosine does), but the
vocabularies are of float16 embeddings, so float16 embeddings do hit them; here they are kept.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.scoring.scorers.heads import save_head

_FLOAT = 1
_Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


def convert_keras_head(archive: Path | str, target: Path | str) -> Path:
    """Write the head of an AutoKeras archive (.zip) in the format of curate.scoring.scorers.heads.

    Raises:
        ConfigError: the archive is not one of these SavedModels.
    """
    try:
        tensors, columns, vocabularies = _read(Path(archive))
        layers, preparation = _parts(tensors, columns, vocabularies)
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, struct.error) as error:
        raise ConfigError(
            f"{archive} is not an AutoKeras SavedModel of LAION's NSFW heads ({error})."
        ) from error
    notes = {"activation": "relu", "output": "sigmoid", "source_sha256": sha256_file(archive)}
    return save_head(layers, target, notes, preparation)


def _read(
    archive: Path,
) -> tuple[dict[str, NDArray[np.float32]], list[int], list[NDArray[np.float64]]]:
    with zipfile.ZipFile(archive) as opened:
        names = {Path(name).name: name for name in opened.namelist() if "__MACOSX" not in name}
        graph = opened.read(names["saved_model.pb"])
        index = opened.read(names["variables.index"])
        data = opened.read(names["variables.data-00000-of-00001"])
    columns, vocabularies = _categories(graph)
    return _bundle(index, data), columns, vocabularies


def _parts(
    tensors: dict[str, NDArray[np.float32]],
    columns: list[int],
    vocabularies: list[NDArray[np.float64]],
) -> tuple[_Layers, dict[str, NDArray[Any]]]:
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    mean = tensors[f"layer_with_weights-1/mean{suffix}"]
    variance = tensors[f"layer_with_weights-1/variance{suffix}"]
    preparation: dict[str, NDArray[Any]] = {
        "input.mean": mean,
        "input.scale": np.maximum(np.sqrt(variance), np.float32(1e-7)),
    }
    if len(columns) != len(vocabularies):
        raise ValueError(f"{len(columns)} categories and {len(vocabularies)} vocabularies")
    for column, known in zip(columns, vocabularies, strict=True):
        preparation[f"categories.{column}.values"] = known
    layers: _Layers = []
    while (kernel := f"layer_with_weights-{len(layers) + 2}/kernel{suffix}") in tensors:
        bias = tensors[kernel.replace("kernel", "bias")]
        layers.append((np.ascontiguousarray(tensors[kernel].T), bias))
    if not layers or layers[-1][0].shape[0] != 1 or layers[0][0].shape[1] != len(mean):
        raise ValueError("its layers do not chain to one number")
    return layers, preparation


# ---- protocol buffers -------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: an int, or the bytes of strings, messages and fixed sizes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:
            size, at = _varint(message, at)
        else:
            size = {5: 4, 1: 8}[tag & 7]
        yield tag >> 3, message[at : at + size]
        at += size


def _first(message: bytes, number: int, default: Any = b"") -> Any:
    return next((value for field, value in _fields(message) if field == number), default)


# ---- the graph: which columns are categories, and their vocabularies ----------------------------


def _categories(saved_model: bytes) -> tuple[list[int], list[NDArray[np.float64]]]:
    graph = _first(_first(saved_model, 2), 2)  # meta_graphs[0].graph_def
    vocabularies = []
    for field, node in _fields(graph):
        if field == 1 and _first(node, 2) == b"Const":
            values = _strings(node)
            if len(values) > 1:
                vocabularies.append(np.array([float(value) for value in values]))
    for field, library in _fields(graph):
        if field != 2:
            continue
        for kind, function in _fields(library):
            if kind == 1 and (columns := _looked_up(function)):
                return columns, vocabularies
    return [], vocabularies


def _strings(node: bytes) -> list[bytes]:
    """The values of a constant of strings."""
    for field, attribute in _fields(node):
        if field == 5 and _first(attribute, 1) == b"value":
            tensor = _first(_first(attribute, 2), 8)
            return [value for number, value in _fields(tensor) if number == 8]
    return []


def _looked_up(function: bytes) -> list[int]:
    """Columns whose numbers a function writes as strings, in its order."""
    columns = []
    for field, node in _fields(function):
        if field == 3 and _first(node, 2) == b"AsString":
            columns.append(int(_first(node, 3).rsplit(b":", 1)[1]))
    return columns


# ---- the tensor bundle ------------------------------------------------------------------------


def _bundle(index: bytes, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Every float tensor by name."""
    at = len(index) - 48  # the footer: handles of two blocks, and a magic number
    for _ in range(2):  # of the index of meta blocks, which is empty
        _, at = _varint(index, at)
    offset, at = _varint(index, at)
    size, _ = _varint(index, at)
    tensors = {}
    for _, handle in _block(index, offset, size):
        start, after = _varint(handle, 0)
        length, _ = _varint(handle, after)
        for key, entry in _block(index, start, length):
            if key and _first(entry, 1, 0) == _FLOAT:
                shape = [
                    _first(dimension, 1, 0)
                    for number, dimension in _fields(_first(entry, 2))
                    if number == 2
                ]
                first, count = _first(entry, 4, 0), _first(entry, 5, 0)
                numbers = np.frombuffer(data[first : first + count], "<f4")
                tensors[key.decode()] = numbers.reshape(shape)
    return tensors


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a LevelDB block; a key shares a prefix with the one before it."""
    if table[offset + size] != 0:
        raise ValueError("its index is compressed")
    block = table[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    key, at = b"", 0
    while at < len(block) - 4 - 4 * restarts:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length
