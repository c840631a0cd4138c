"""Pictures that runs drew: every one is kept, lossless, and what is missing is drawn.

RUN/asked.parquet               picture_id, noise, noise_seed and the columns of PROMPTS: what it
                                was ever asked, so that any judge may look later
RUN/pictures/<hash>.parquet     picture_id, prompt_id, noise, webp; a part at a time, each whole
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from curate.base.column_marks import note, noted_in
from curate.base.errors import DatasetError
from curate.base.files import atomic_path, fingerprint

Drawing = Callable[[list[str], list[int]], NDArray[np.uint8]]
"""Prompts and the keys of their noise -> pictures (N, R, R, 3)."""
FOLDER, ASKED_FILE = "pictures", "asked.parquet"
PICTURES = pa.schema(
    [
        ("picture_id", pa.string()),
        ("prompt_id", pa.string()),  # the first that asked for it
        ("noise", pa.int64()),
        ("webp", pa.binary()),
    ]
)
_TOOK = b"caplab_took"
AT_ONCE = 256
"""Pictures of a part. A kill leaves whole parts, so that the rest is drawn in the same batches."""


def noise_seed(generation_seed: int, intent_id: str, noise: int) -> int:
    """63 bits of a noise of an intent: arms, seeds, forms and wordings share it."""
    return int(fingerprint([generation_seed, intent_id, noise]), 16) >> 1


@dataclass(frozen=True)
class Asked:
    """What every run of a study is asked to draw. Travels to the workers.

    Attributes:
        prompts: in the schema PROMPTS.
        noises: pictures of each prompt.
    """

    prompts: pa.Table
    noises: int
    generation_seed: int

    @cached_property
    def rows(self) -> pa.Table:
        """PROMPTS with noise and noise_seed: a row a picture, forms and wordings together."""
        order = [(name, "ascending") for name in ("form", "wording")]
        prompts = self.prompts.sort_by(order)
        parts = []
        for noise in range(self.noises):
            seeds = [
                noise_seed(self.generation_seed, intent, noise)
                for intent in prompts.column("intent_id").to_pylist()
            ]
            part = prompts.append_column("noise", pa.array([noise] * len(seeds), pa.int64()))
            parts.append(part.append_column("noise_seed", pa.array(seeds, pa.int64())))
        return pa.concat_tables(parts)

    def of(self, run_id: str, sampling: Mapping[str, Any]) -> pa.Table:
        """`rows` with the pictures' ids when that run draws them in that way."""
        texts, seeds = (self.rows.column(name).to_pylist() for name in ("prompt", "noise_seed"))
        ids = [
            fingerprint([run_id, text, seed, sampling])
            for text, seed in zip(texts, seeds, strict=True)
        ]
        return self.rows.append_column("picture_id", pa.array(ids, pa.string()))


def stored(run: Path) -> dict[str, tuple[Path, int]]:
    """Picture -> the file and the row where it is kept.

    Raises:
        DatasetError: a file cannot be read.
    """
    found = {}
    for path in sorted((run / FOLDER).glob("*.parquet")):
        for row, picture in enumerate(_read(path, ["picture_id"])["picture_id"].to_pylist()):
            found[picture] = path, row
    return found


def missing(run: Path, wanted: pa.Table) -> pa.Table:
    """The rows of `wanted` (of `Asked.of`) that have no picture yet, each picture once."""
    there, rows = set(stored(run)), []
    for row, picture in enumerate(wanted.column("picture_id").to_pylist()):
        if picture not in there:
            there.add(picture)
            rows.append(row)
    return wanted.take(pa.array(rows, pa.int64()))


def asked_so_far(run: Path) -> pa.Table | None:
    """All that a run was ever asked to draw, as `Asked.of` gives it; None where it drew nothing."""
    path = run / ASKED_FILE
    return _read(path, None) if path.exists() else None


def keep_asked(run: Path, wanted: pa.Table) -> None:
    """Add what a run is asked to draw to asked.parquet."""
    before = asked_so_far(run)
    known = set() if before is None else set(pairs(before))
    rows = [row for row, pair in enumerate(pairs(wanted)) if pair not in known]
    if not rows:
        return
    new = wanted.take(pa.array(rows, pa.int64()))
    table = new if before is None else pa.concat_tables([before, new])
    with atomic_path(run / ASKED_FILE) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def pairs(table: pa.Table) -> Iterator[tuple[str, str]]:
    """(picture, prompt) of each row."""
    return zip(*(table.column(n).to_pylist() for n in ("picture_id", "prompt_id")), strict=True)


def draw(run: Path, drawing: Drawing, wanted: pa.Table) -> None:
    """Draw and keep what is missing of `wanted`, a part at a time."""
    rows = missing(run, wanted)
    for start in range(0, rows.num_rows, AT_ONCE):
        part = rows.slice(start, AT_ONCE)
        begun = time.perf_counter()
        prompts, keys = (part.column(name).to_pylist() for name in ("prompt", "noise_seed"))
        pictures = drawing(prompts, keys)
        seconds = time.perf_counter() - begun
        kept = part.select(["picture_id", "prompt_id", "noise"])
        webp = pa.array([webp_of(picture) for picture in pictures], pa.binary())
        name = fingerprint(part.column("picture_id").to_pylist())
        with atomic_path(run / FOLDER / f"{name}.parquet") as temporary:
            table = kept.append_column("webp", webp).cast(PICTURES)
            pq.write_table(table.replace_schema_metadata(took(seconds)), temporary)


def took(seconds: float) -> dict[bytes, bytes]:
    """Metadata of a part: how long it took to draw or to judge."""
    return note({"seconds": seconds}, _TOOK)


def seconds_in(path: Path) -> float:
    """How long a part took; 0 where it does not say."""
    return float(noted_in(path, _TOOK).get("seconds", 0.0))


def encoded(run: Path, picture_ids: Sequence[str]) -> list[bytes]:
    """The WebP of each picture.

    Raises:
        DatasetError: one was never drawn, or its file cannot be read.
    """
    places = stored(run)
    if lost := [picture for picture in picture_ids if picture not in places]:
        raise DatasetError(f"{run} lacks {len(lost)} of {len(picture_ids)} pictures; draw them.")
    by_file: dict[Path, list[bytes]] = {}
    found = []
    for picture in picture_ids:
        path, row = places[picture]
        if path not in by_file:
            by_file[path] = _read(path, ["webp"])["webp"].to_pylist()
        found.append(by_file[path][row])
    return found


def pictures_of(run: Path, picture_ids: Sequence[str]) -> NDArray[np.uint8]:
    """(N, R, R, 3) uint8 pictures, sRGB.

    Raises:
        DatasetError: as `encoded`.
    """
    return np.stack([decoded(own) for own in encoded(run, picture_ids)])


def decoded(webp: bytes) -> NDArray[np.uint8]:
    """A picture (R, R, 3) uint8.

    Raises:
        DatasetError: it is damaged.
    """
    try:
        return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"A kept picture is damaged ({error}); delete its run's pictures, and draw again."
        ) from error


def webp_of(picture: NDArray[np.uint8]) -> bytes:
    """A picture (R, R, 3) as lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def read_kept(
    path: Path, columns: Sequence[str] | None, remedy: str, needed: Sequence[str] = ()
) -> pa.Table:
    """A table that a study keeps.

    Raises:
        DatasetError: it cannot be read, or lacks a column that is `needed`.
    """
    try:
        with pq.ParquetFile(path) as file:
            if lost := sorted(set(needed) - set(file.schema_arrow.names)):
                raise DatasetError(f"{path} has no column {lost[0]!r}; {remedy}.")
            return file.read(columns)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is unreadable ({error}); {remedy}.") from error


def _read(path: Path, columns: Sequence[str] | None) -> pa.Table:
    return read_kept(path, columns, "delete it, and draw again", columns or ())
