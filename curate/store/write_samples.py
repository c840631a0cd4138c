"""What became of a shard's rows, and how it is written: the tar first, then the samples table.

Every way in ends here, the download and the reading of pictures that are here already, so that
both store alike: one row of the samples table for each input row, and for each picture that was
stored KEY.jpg (png, webp), KEY.txt and KEY.json in the tar, all in the order of the input.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa

from curate.base.arrow_columns import readable, to_python
from curate.base.files import remove_leftovers
from curate.base.reasons import Failure, Reason
from curate.pictures.resize import StoredImage
from curate.store.contract import FAILED, STORED
from curate.store.dataset import Dataset
from curate.store.holes import parquet_damage, tar_damage
from curate.store.shards import write_shard

# Columns that the intake adds to the rows of a shard: a row that came in broken carries its reason
# in the first two; the others say where a local picture lies.
FAILURE, FAILURE_DETAIL = "failure", "failure_detail"
SOURCE_FILE, SOURCE_KEY = "source_file", "source_key"
SOURCE_OFFSET, SOURCE_BYTES = "source_offset", "source_bytes"
# All texts of a picture, the alt text first; null where there is one or none.
ALT_TEXTS = "alt_texts"
_ORIGINAL = ("original_width", "original_height", "original_format", "original_bytes")
_GIVEN = ("key", "row", "url", "alt_text")
_NOT_IN_SIDECAR = (FAILURE, FAILURE_DETAIL, SOURCE_OFFSET, SOURCE_BYTES, ALT_TEXTS)


@dataclass(frozen=True)
class Spooled:
    """A stored picture whose bytes wait in the spool."""

    image: StoredImage  # without its bytes
    offset: int
    size: int


Outcome = Spooled | Failure


class Spool:
    """Pictures of one shard on disk, until their turn in the tar comes."""

    def __init__(self, file: IO[bytes]) -> None:
        """`file` is empty and open for reading and writing."""
        self._file = file
        self._end = 0

    def add(self, image: StoredImage) -> Spooled:
        """Append the picture's bytes. OSError (a full disk) is the caller's."""
        self._file.seek(self._end)
        self._file.write(image.content)
        spooled = Spooled(replace(image, content=b""), self._end, len(image.content))
        self._end += spooled.size
        return spooled

    def read(self, spooled: Spooled) -> bytes:
        """The bytes of one picture."""
        self._file.seek(spooled.offset)
        return self._file.read(spooled.size)


@contextmanager
def open_spool(dataset: Dataset, shard: str) -> Iterator[Spool]:
    """Room for pictures beside a shard's tar; what a dead process left of that goes first."""
    folder = dataset.shard_path(shard).parent
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, f"{shard}.tar")
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file)


def intake_failures(rows: pa.Table) -> dict[int, Failure]:
    """Position -> why the row came in broken (an unreadable line, a tar member without picture).

    Such a row needs no download; its failure stands in the samples table like any other.
    """
    if FAILURE not in rows.column_names:
        return {}
    reasons = rows.column(FAILURE).to_pylist()
    details = rows.column(FAILURE_DETAIL).to_pylist()
    return {
        position: Failure(Reason.named(reason), details[position] or "")
        for position, reason in enumerate(reasons)
        if reason is not None
    }


def is_stored(dataset: Dataset, shard: str) -> bool:
    """Whether samples table and tar of a shard are there and whole, as far as their ends tell."""
    table = dataset.table_path("samples", shard)
    return parquet_damage(table) is None and tar_damage(dataset.shard_path(shard)) is None


def write_outcomes(
    dataset: Dataset, shard: str, rows: pa.Table, outcomes: Sequence[Outcome], spool: Spool
) -> dict[str, int]:
    """Write `shards/SHARD.tar`, then the samples table, which says that the shard is done.

    Args:
        rows: of `dataset.input_path(shard)`.
        outcomes: one a row, in order.

    Returns:
        "stored" and each reason with its number of rows.
    """
    note = write_shard(dataset.shard_path(shard), sample_members(rows, outcomes, spool))
    samples = sample_rows(rows, outcomes, shard).replace_schema_metadata(note)
    dataset.write_table("samples", samples, shard)
    return dict(Counter(o.reason.value if isinstance(o, Failure) else STORED for o in outcomes))


def sample_members(
    rows: pa.Table, outcomes: Sequence[Outcome], spool: Spool
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The tar's samples in input order: picture, text, and the row's fields as JSON.

    In a shard in which a row came with several texts, the JSON of every sample has the list
    `alt_texts`.
    """
    several = ALT_TEXTS in rows.column_names and (rows.column(ALT_TEXTS).null_count < rows.num_rows)
    for row, outcome in zip(_row_dicts(rows), outcomes, strict=True):
        if isinstance(outcome, Failure):
            continue
        image = outcome.image
        fields = {name: row[name] for name in _GIVEN}
        told = ("width", "height", *_ORIGINAL, "format", "sha256")
        fields |= {name: getattr(image, name) for name in told}
        for name, value in row.items():
            if name not in _GIVEN and name not in _NOT_IN_SIDECAR:
                fields[f"input_{name}" if name in fields else name] = _finite(value)
        if several:
            alone = [] if row["alt_text"] is None else [row["alt_text"]]
            fields[ALT_TEXTS] = row[ALT_TEXTS] or alone
        yield (
            row["key"],
            {
                image.format: spool.read(outcome),
                "txt": (row["alt_text"] or "").encode("utf-8"),
                "json": json.dumps(fields, ensure_ascii=False, default=readable).encode("utf-8"),
            },
        )


def _row_dicts(rows: pa.Table) -> Iterator[Mapping[str, Any]]:
    names = rows.column_names
    for batch in rows.to_batches(max_chunksize=1000):
        for values in zip(*(to_python(column) for column in batch.columns), strict=True):
            yield dict(zip(names, values, strict=True))


def _finite(value: Any) -> Any:
    """NaN and infinities have no JSON; they become null, also inside lists and structs."""
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sample_rows(rows: pa.Table, outcomes: Sequence[Outcome], shard: str) -> pa.Table:
    """The samples table of a shard: one row an input row, in input order."""
    images = [None if isinstance(outcome, Failure) else outcome.image for outcome in outcomes]
    failures = [outcome if isinstance(outcome, Failure) else None for outcome in outcomes]
    sources = [image or failure for image, failure in zip(images, failures, strict=True)]
    columns = {
        "status": [FAILED if failure else STORED for failure in failures],
        "reason": [failure and failure.reason.value for failure in failures],
        "detail": [failure and (failure.detail or None) for failure in failures],
    }
    of_stored = ("width", "height", "format", "jpeg_quality")
    for part, names in ((images, of_stored), (sources, (*_ORIGINAL, "sha256"))):
        columns |= {name: [one and getattr(one, name) for one in part] for name in names}
    given = {name: rows.column(name) for name in _GIVEN}
    return pa.table({**given, "shard": [shard] * rows.num_rows, **columns})
