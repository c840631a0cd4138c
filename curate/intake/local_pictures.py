"""The stage for pictures that are here already: tars, folders, Parquet with image bytes.

It stands in the place of the download. A picture's bytes are found by what the intake wrote down
(file, offset, size), and go down the same road as downloaded ones: upright, sRGB, no metadata, the
original's size and sha256 recorded, and a reason for each that cannot be stored.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.progress import advance
from curate.base.reasons import Failure, FailureError, Reason
from curate.intake.lists.record import Intake, read_intake
from curate.intake.locations import Store
from curate.intake.tars import EXTENSIONS, open_tar
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from curate.store.write_samples import (
    SOURCE_BYTES,
    SOURCE_FILE,
    SOURCE_OFFSET,
    Outcome,
    Spool,
    intake_failures,
    is_stored,
    open_spool,
    write_outcomes,
)

_AHEAD = 64  # rows of a Parquet file whose pictures are read at a time


class LocalPicturesStage(Stage):
    """Stores one shard of pictures that need no download, and its samples table.

    Cost: one read, decode and encode a picture. Neighbouring rows lie in neighbouring places, so a
    file is opened once a shard. A packed tar (.tar.gz) is unpacked from its start for each shard
    that it reaches into. Memory: one picture, of Parquet a batch of 64.
    """

    name: ClassVar[str] = "store"
    adds: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(self, settings: PictureSettings) -> None:
        """The part of the download's settings that says how pictures are stored."""
        self.settings = settings

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the shard's samples table and its tar are there and whole."""
        return is_stored(dataset, shard)

    def open(self) -> None:
        """Pillow's warnings (odd tags, large sizes) are the resizer's business."""
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Store a shard; returns stored and each reason with its number of rows."""
        intake = read_intake(dataset, shard)
        if intake is None or not intake.local:
            raise DatasetError(f"{dataset.directory} was not made from pictures that are here.")
        rows = pq.read_table(dataset.input_path(shard))
        with open_spool(dataset, shard) as spool:
            outcomes = self._store(rows, intake, spool)
            return write_outcomes(dataset, shard, rows, outcomes, spool)

    def _store(self, rows: pa.Table, intake: Intake, spool: Spool) -> list[Outcome]:
        """What became of each row, in order."""
        resizer = Resizer(self.settings)
        outcomes: dict[int, Outcome] = dict(intake_failures(rows))
        wanted = [position for position in range(rows.num_rows) if position not in outcomes]
        limit = self.settings.max_bytes
        here = rows.take(pa.array(wanted, pa.int64()))
        for position, content in _contents(here, intake, wanted, limit):
            advance()
            if isinstance(content, Failure):
                outcomes[position] = content
            elif len(content) > limit:
                outcomes[position] = Failure(Reason.TOO_LARGE, f"more than {limit:,} bytes")
            elif not content:
                outcomes[position] = Failure(Reason.EMPTY_BODY)
            else:
                try:
                    stored = resizer.outcome(content)
                except MemoryError:
                    stored = Failure(Reason.UNEXPECTED, "out of memory")
                outcomes[position] = stored if isinstance(stored, Failure) else spool.add(stored)
        lost = Failure(Reason.UNEXPECTED, "no outcome")
        return [outcomes.get(position, lost) for position in range(rows.num_rows)]


def _contents(
    rows: pa.Table, intake: Intake, positions: list[int], limit: int
) -> Iterator[tuple[int, bytes | Failure]]:
    """(position, the picture's bytes or why there are none) of each row, in order.

    Args:
        limit: bytes of a picture; of a longer one no more than one further byte is read.
    """
    store = Store(intake.scheme, intake.root)
    files = rows.column(SOURCE_FILE).to_pylist()
    offsets = rows.column(SOURCE_OFFSET).to_pylist()
    sizes = rows.column(SOURCE_BYTES).to_pylist()
    start = 0
    while start < len(files):
        stop = start
        while stop < len(files) and files[stop] == files[start]:
            stop += 1
        path, places = files[start], offsets[start:stop]
        here = positions[start:stop]
        done = 0
        try:
            if intake.format == "parquet":
                found: Iterator[bytes | Failure] = _from_parquet(store, path, places, intake, limit)
            elif path.endswith(EXTENSIONS) and intake.format == "webdataset":
                found = _from_tar(store, path, places, sizes[start:stop], limit)
            else:
                found = _from_file(store, path, limit)
            for content in found:
                yield here[done], content
                done += 1
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            # The stream is at an unknown place now: the rest of this file in this shard is lost.
            damaged = isinstance(error, EOFError | zlib.error | pa.ArrowInvalid)
            reason = Reason.DAMAGED_SOURCE if damaged else Reason.UNREADABLE_FILE
            failure = FailureError(reason, f"{path}: {error}").failure
            yield from ((position, failure) for position in here[done:])
        start = stop


def _from_tar(
    store: Store, path: str, offsets: list[int], sizes: list[int], limit: int
) -> Iterator[bytes | Failure]:
    with open_tar(store, path) as stream:
        for offset, size in zip(offsets, sizes, strict=True):
            if size > limit:  # as its header claims, which may be a lie: nothing is read
                yield Failure(Reason.TOO_LARGE, f"{size:,} bytes")
                continue
            stream.seek(offset)
            content = stream.read(size)
            if len(content) < size:
                yield Failure(Reason.DAMAGED_SOURCE, f"{path} ends inside the picture")
            else:
                yield content


def _from_file(store: Store, path: str, limit: int) -> Iterator[bytes | Failure]:
    with store.open(path) as stream:
        yield stream.read(limit + 1)


def _from_parquet(
    store: Store, path: str, places: list[int], intake: Intake, limit: int
) -> Iterator[bytes | Failure]:
    """Pictures of ascending row numbers; row groups that hold none are not read."""
    column = str(intake.image_column)
    with pq.ParquetFile(store.arrow_file(path)) as parquet:
        waiting = list(reversed(places))
        first = 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            if not waiting or waiting[-1] >= end:
                first = end
                continue
            for batch in parquet.iter_batches(_AHEAD, row_groups=[group], columns=[column]):
                pictures, paths = _bytes(batch.column(0))
                while waiting and waiting[-1] < first + batch.num_rows:
                    row = waiting.pop() - first
                    content = pictures[row].as_py()
                    if content is not None:
                        yield content
                    else:
                        yield _beside(store, path, paths[row].as_py() if paths else None, limit)
                first += batch.num_rows
                if not waiting:
                    return


def _bytes(column: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Bytes, and paths where the column has them."""
    if not pa.types.is_struct(column.type):
        return column, None
    names = [field.name for field in column.type]
    paths = pc.struct_field(column, "path") if "path" in names else None
    return pc.struct_field(column, "bytes"), paths


def _beside(store: Store, path: str, named: str | None, limit: int) -> bytes | Failure:
    """A picture that a row names in place of holding it, if it lies below the input's root."""
    if not named:
        return Failure(Reason.NO_PICTURE, "neither bytes nor a path")
    inside = os.path.normpath(os.path.join(os.path.dirname(path), named))
    if inside.startswith("..") or os.path.isabs(inside):
        return Failure(Reason.NO_PICTURE, "its path leads out of the input")
    try:
        with store.open(inside) as stream:
            return stream.read(limit + 1)
    except OSError as error:
        return FailureError(Reason.NO_PICTURE, f"{named}: {error.strerror or error}").failure
