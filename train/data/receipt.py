"""The receipt: which captions a run was really trained on, written down as they were encoded.

    OUT/receipt/STEP-rank-K-of-W.bin   one fixed-size record a draw, from STEP on, while training
    OUT/receipt.parquet                key, kind, sample_index, text_sha256, dropped, draws; sorted

A segment counts up to the step at which a later one starts, so a run that was killed, went on from
a checkpoint, or was moved to other numbers of processes counts every draw once. What the settings
declare is a function of (seed, step, key), so `check_receipt` makes it again and compares.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, read_json, read_record
from train.data.captions import CaptionDraws
from train.data.index import TrainingIndex
from train.data.order import DataOrder
from train.data.receipt_ledger import (
    AT_A_TIME,
    COLUMNS,
    RECORD,
    Ledger,
    Records,
    records_of,
)
from train.protocols import Batch
from train.settings import TrainSettings

if TYPE_CHECKING:
    import duckdb

    from train.data.loader import TrainingData

_SEGMENT = re.compile(r"(\d{9})-rank-(\d+)-of-(\d+)\.bin")
_CONFIDENCE = 0.999
_INDEX_NOTE = b"caplab_index"


# ---- while training -----------------------------------------------------------------------------


class ReceiptWriter:
    """The records of one rank, in order of steps."""

    def __init__(self, folder: Path, rank: int, world: int, batch_size: int) -> None:
        """
        Args:
            folder: OUT/receipt.
            batch_size: pictures a step, of all ranks together.
        """
        self.folder, self.rank, self.world, self.batch_size = folder, rank, world, batch_size
        self._waiting: list[Records] = []
        self._path = Path()

    def truncate(self, step: int) -> None:
        """Begin, or go on, at `step`: what was written of it and later ones counts no more.

        Raises:
            DatasetError: steps before it are not all on record.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{step:09d}-rank-{self.rank}-of-{self.world}.bin"
        if self.rank == 0:
            for path, start, world in _segments(self.folder):
                # Files of this very beginning are their ranks' own.
                if start > step or (start == step and world != self.world):
                    path.unlink()
            _refuse_gaps(_counts(self.folder, step, step), self.batch_size, self.folder)
        self._waiting = []
        self._path.write_bytes(b"")

    def add(self, step: int, batch: Batch) -> None:
        """Note what was drawn for a batch; steps never go back."""
        self._waiting.append(records_of(step, batch.rows, batch.drawn))
        if len(self._waiting) >= 1000:
            self._write()

    def flush(self) -> None:
        """Put all on disk, before a checkpoint says that these steps are done."""
        self._write(sync=True)

    def _write(self, sync: bool = False) -> None:
        with open(self._path, "ab") as file:
            for records in self._waiting:
                file.write(records.tobytes())
            if sync:
                file.flush()
                os.fsync(file.fileno())
        self._waiting = []


def declared(
    index: TrainingIndex, order: DataOrder, draws: CaptionDraws, steps: int
) -> Iterator[Records]:
    """The records that a run of `steps` steps must have, step by step."""
    for step in range(steps):
        rows, epochs = order.batch(step)
        yield records_of(step, rows, draws.draw(rows, epochs))


# ---- at the end ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receipt:
    """What was drawn, in short."""

    blend: dict[str, float]
    """Caption kind -> share of the draws, before dropout."""
    caption_dropout: float
    """Share of the draws that were emptied."""


def write_receipt(data: TrainingData, path: Path, steps: int) -> Receipt:
    """Write receipt.parquet from the records beside it; by one rank, after all have flushed.

    Raises:
        DatasetError: a step before `steps` is not on record, or not once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, index = path.with_suffix(""), data.index
    _refuse_gaps(_counts(folder, steps, steps), data.order.batch_size, folder)
    with Ledger(path.parent, index, data.draws.kinds) as ledger:
        ledger.add("drawn", _written(folder, steps))
        rows = ledger.connection.sql(f"SELECT {COLUMNS} FROM drawn ORDER BY ALL")
        # DuckDB 2 renamed the streaming reader.
        renamed = hasattr(rows, "to_arrow_reader")
        reader = (rows.to_arrow_reader if renamed else rows.fetch_arrow_reader)(1 << 16)
        place = f"{index.fingerprint} {index.folder.absolute()}".encode()
        schema = reader.schema.with_metadata({_INDEX_NOTE: place})
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for batch in reader:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    return read_receipt(path)


def read_receipt(path: Path) -> Receipt:
    """The shares in a receipt.

    Raises:
        DatasetError: it is not there or unreadable.
    """
    rows = _table(path)
    draws = rows["draws"].to_numpy()
    total = int(draws.sum())
    kinds = np.array(rows["kind"].to_pylist())
    names = sorted(set(kinds.tolist()))
    dropped = draws[np.array(rows["dropped"].to_pylist(), bool)].sum() if len(rows) else 0
    return Receipt(
        {kind: float(draws[kinds == kind].sum() / total) for kind in names},
        float(dropped / max(total, 1)),
    )


def realised_shares(run: Path) -> dict[str, float]:
    """Caption kind -> its share of what a finished run drew, before dropout."""
    return read_receipt(run / "receipt.parquet").blend


def refuse_wrong_receipt(run: Path) -> None:
    """Raise DatasetError where a finished run's receipt is not what its settings declare."""
    if problems := check_receipt(run):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DatasetError(f"The receipt of {run} is not what was declared: {problems[0]}{more}")


def check_receipt(
    run: Path, index: TrainingIndex | None = None, settings: TrainSettings | None = None
) -> list[str]:
    """What is wrong with a finished run's receipt, in sentences; none = it is what was declared.

    Every draw is made again from the seed, and texts are held against the dataset's; shares of
    kinds and of dropout must lie within exact binomial limits of 99.9%.

    Args:
        index: of the training rows; None = where the run had it.
        settings: None = the run's own.

    Raises:
        DatasetError: the run, its receipt or its index is not there.
    """
    path = run / "receipt.parquet"
    table = _table(path)
    if index is None:
        index = _index_of(path, table.schema.metadata or {})
    if settings is None:
        stored = read_record(run / "run.json")["identity"]["settings"]
        settings = TrainSettings(**stored)
    steps = int(read_json(run / "summary.json")["steps"])
    order = DataOrder(
        index.buckets, settings.batch_size, settings.seed, settings.shuffle_block, index.weights
    )
    draws = CaptionDraws(index, settings)
    with Ledger(run, index, draws.kinds) as ledger:
        ledger.connection.register("receipt", table)
        problems = []
        if not settings.tag_shuffle:  # else the draws below tell
            problems += ledger.foreign_texts()
        problems += _wrong_shares(ledger.connection, settings, steps * settings.batch_size)
        ledger.add("drawn", declared(index, order, draws, steps))
        return problems + ledger.differences(steps * settings.batch_size)


def _index_of(path: Path, notes: dict[bytes, bytes]) -> TrainingIndex:
    mark, _, place = notes.get(_INDEX_NOTE, b"").decode().partition(" ")
    folder = Path(place)
    if not mark or not (folder / "index.json").exists():
        raise DatasetError(
            f"The index that {path} was drawn from is gone; the same `caplab train` makes it again."
        )
    index = TrainingIndex(folder)
    if index.fingerprint != mark:
        raise DatasetError(f"{folder} is not the index that {path} was drawn from.")
    return index


def _wrong_shares(
    connection: duckdb.DuckDBPyConnection, settings: TrainSettings, total: int
) -> list[str]:
    from scipy.stats import binomtest

    counted = dict(
        connection.execute("SELECT kind, sum(draws)::BIGINT FROM receipt GROUP BY kind").fetchall()
    )
    ((dropped,),) = connection.execute(
        "SELECT coalesce(sum(draws) FILTER (dropped), 0)::BIGINT FROM receipt"
    ).fetchall()
    found = sum(counted.values())
    if found != total:
        return [f"it holds {found:,} draws, and the steps made {total:,}."]
    shares = {kind: (counted.get(kind, 0), p) for kind, p in settings.captions.items()}
    shares |= {kind: (n, 0.0) for kind, n in counted.items() if kind not in settings.captions}
    shares["dropped captions"] = (dropped, settings.prompt_dropout_prob)
    problems = []
    for name, (count, share) in shares.items():
        if binomtest(count, total, min(share, 1.0)).pvalue < 1 - _CONFIDENCE:
            problems.append(
                f"{name}: {count:,} of {total:,} draws ({count / total:.2%}), where {share:.2%} "
                f"was declared; chance gives as much in fewer than one of 1,000 runs."
            )
    return problems


# ---- files ---------------------------------------------------------------------------------------


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is missing or unreadable ({error}).") from error


def _segments(folder: Path) -> list[tuple[Path, int, int]]:
    """File, first step and number of ranks of every segment."""
    found = []
    for path in sorted(folder.glob("*.bin")):
        if match := _SEGMENT.fullmatch(path.name):
            found.append((path, int(match[1]), int(match[3])))
    return found


def _written(folder: Path, stop: int) -> Iterator[Records]:
    """The records of steps before `stop`, each as the last segment of its step has it."""
    segments = _segments(folder)
    starts = sorted({start for _, start, _ in segments})
    for path, start, _ in segments:
        end = min([later for later in starts if later > start] + [stop])
        count = path.stat().st_size // RECORD.itemsize
        for first in range(0, count, AT_A_TIME):
            some = np.fromfile(
                path, RECORD, min(AT_A_TIME, count - first), offset=first * RECORD.itemsize
            )
            yield some[some["step"] < end]


def _counts(folder: Path, steps: int, stop: int) -> NDArray[np.int64]:
    """(steps,) draws on record of every step."""
    counts = np.zeros(steps, np.int64)
    for some in _written(folder, stop):
        counts += np.bincount(some["step"], minlength=steps)
    return counts


def _refuse_gaps(counts: NDArray[np.int64], batch_size: int, folder: Path) -> None:
    wrong = np.flatnonzero(counts != batch_size)
    if len(wrong):
        raise DatasetError(
            f"{folder} has {counts[wrong[0]]:,} draws of step {wrong[0]:,} on record, and a step "
            f"makes {batch_size:,}; the run cannot say what it was trained on, so train it anew."
        )
