"""What every way of writing an export shares: where a shard stands, its samples, their fields.

A shard is written beside its place and renamed, so one that is there is whole. Pictures' bytes are
those of the dataset, unchanged.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from curate.base.files import temporary_path
from curate.export.pictures import PictureReader
from curate.export.plan import Plan
from curate.export.settings import ExportSettings

PLACE = frozenset({"shard", "extension", "offset", "size"})
"""Columns of a plan that say where a picture lies, and are no fields of a sample."""


class Layout(ABC):
    """One way of writing. `shard_path` exists exactly when the shard is whole."""

    pattern: ClassVar[str]
    """Glob of the shards, for the dataset card."""

    def __init__(self, out: Path, settings: ExportSettings, plan: Plan) -> None:
        """`out` is the export's directory."""
        self.out, self.settings, self.plan = out, settings, plan

    @abstractmethod
    def shard_path(self, number: int) -> Path:
        """File or folder of one shard."""

    @abstractmethod
    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        """Write one shard."""

    def finish(self) -> None:
        """Write what stands once for all shards. Default: nothing."""
        return

    def features(
        self, columns: pa.Schema, extensions: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        """What `datasets` shall take the fields for, as a dataset card says it; None = it can tell.

        Where it has to guess from the first samples, a field that is null there gets no type, and
        the first value ends the reading.

        Args:
            columns: of the plan.
            extensions: of the pictures.
        """
        return None

    def read_as(self) -> str:
        """Python or a command that reads the export, for the dataset card."""
        return f'load_dataset("{self.out.name}")'


def samples(rows: pa.Table, reader: PictureReader) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each sample with its picture; memory is one picture and a thousand rows."""
    for batch in rows.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield row, reader.read(row["key"], row["shard"], row["offset"], row["size"])


def described(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's fields for JSON, the caption under `text`, as readers expect it."""
    fields = {"text" if n == "caption" else n: v for n, v in row.items() if n not in PLACE}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def as_json(fields: Mapping[str, Any]) -> str:
    """One line; a time or the like as text."""
    return json.dumps(fields, ensure_ascii=False, default=str)


def json_features(columns: pa.Schema) -> list[dict[str, Any]]:
    """Name and dtype of the fields that `described` gives; what JSON knows not is text there."""
    found = []
    for field in columns:
        if field.name not in PLACE:
            plain = pa.types.is_boolean(field.type) or pa.types.is_integer(field.type)
            number = plain or pa.types.is_floating(field.type)
            name = "text" if field.name == "caption" else field.name
            found.append({"name": name, "dtype": dtype(field.type) if number else "string"})
    return found


def dtype(kind: pa.DataType) -> str:
    """The name that `datasets` has for a type of a field."""
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return names.get(str(kind), str(kind))


class Folders(Layout):
    """A folder of pictures a shard."""

    where: ClassVar[str]

    def shard_path(self, number: int) -> Path:
        return self.out / self.where / f"{number:05d}"

    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        path = self.shard_path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path)
        shutil.rmtree(temporary, ignore_errors=True)  # of an earlier try of this same process
        temporary.mkdir()
        self.fill(temporary, rows, reader)
        os.sync()  # one flush for all files of the shard, before the rename makes them count
        self.beside(number, rows)
        os.replace(temporary, path)

    @abstractmethod
    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        """Write the files of a shard."""

    def beside(self, number: int, rows: pa.Table) -> None:
        """Write what belongs to a shard and lies beside its folder."""
        return
