"""The receipt: which captions a run was really trained on, written down as they were encoded.

    OUT/receipt/STEP-rank-K-of-W.bin   one fixed-size record a draw, from STEP on, while training
    OUT/receipt.parquet                key, kind, wanted, sample_index, text_sha256, dropped, draws

The receipt is sorted. `wanted` is the kind that the seed drew, `kind` what was taken: another where
the picture lacks it and the blend may fall back.

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

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, read_json, read_record
from curate.store.caption_blend import blend_order
from train.data.captions import CaptionDraws
from train.data.order import DataOrder
from train.data.receipt_ledger import (
    AT_A_TIME,
    COLUMNS,
    RECORD,
    Records,
    count_draws,
    differences,
    records_of,
)
from train.data.rows import TrainingIndex
from train.data.sorting import sorter
from train.protocols import Batch
from train.settings import TrainSettings, seed_of

if TYPE_CHECKING:
    from train.data.loader import TrainingData

_SEGMENT = re.compile(r"(\d{9})-rank-(\d+)-of-(\d+)\.bin")
_LEAST_LIKELY = 1e-6
"""Of a share: a study looks at a hundred of them, and a run of an unlucky seed cannot be mended."""
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
            _refuse_gaps(self.folder, step, self.batch_size)
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


# ---- at the end ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receipt:
    """What was drawn, in short."""

    draws: dict[str, int]
    """Caption kind -> draws, before dropout."""
    dropped: int
    """Draws that were emptied."""
    wanted: dict[str, int]
    """Caption kind -> draws that the seed gave it, before falling back."""
    fell_back: int
    """Draws that took another kind, since the picture lacks the one that was wanted."""

    @property
    def total(self) -> int:
        """All draws."""
        return sum(self.draws.values())

    @property
    def blend(self) -> dict[str, float]:
        """Caption kind -> share of the draws, before dropout."""
        return {kind: count / self.total for kind, count in self.draws.items()}

    @property
    def caption_dropout(self) -> float:
        """Share of the draws that were emptied."""
        return self.dropped / max(self.total, 1)


def write_receipt(data: TrainingData, path: Path, steps: int) -> Receipt:
    """Write receipt.parquet from the records beside it; by one rank, after all have flushed.

    Raises:
        DatasetError: a step before `steps` is not on record, or not once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, index = path.with_suffix(""), data.index
    _refuse_gaps(folder, steps, data.order.batch_size)
    with sorter(path.parent) as connection:
        count_draws(connection, "drawn", _written(folder, steps), index, data.draws.kinds)
        rows = connection.sql(f"SELECT {COLUMNS} FROM drawn ORDER BY ALL")
        # DuckDB 2 renamed the streaming reader.
        renamed = hasattr(rows, "to_arrow_reader")
        reader = (rows.to_arrow_reader if renamed else rows.fetch_arrow_reader)(1 << 16)
        place = f"{index.fingerprint_of(data.draws.kinds)} {index.folder.absolute()}".encode()
        schema = reader.schema.with_metadata({_INDEX_NOTE: place})
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for batch in reader:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    return _counted(_table(path))


def realised_shares(run: Path) -> dict[str, float]:
    """Caption kind -> its share of what a finished run drew, before dropout."""
    return _counted(_table(run / "receipt.parquet")).blend


def refuse_wrong_receipt(run: Path, index: TrainingIndex | None = None) -> None:
    """Raise DatasetError where a finished run's receipt is not what its settings declare."""
    if problems := check_receipt(run, index):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DatasetError(f"The receipt of {run} is not what was declared: {problems[0]}{more}")


def check_receipt(run: Path, index: TrainingIndex | None = None) -> list[str]:
    """What is wrong with a finished run's receipt, in sentences; none = it is what was declared.

    Every draw is made again from the seed and the dataset's captions; shares of kinds and of
    dropout must be no less likely, by the exact binomial test, than one in a million.

    Args:
        index: of the same rows, where the dataset may lie elsewhere by now; None = where it lay.

    Raises:
        DatasetError: the run, its receipt or its index is not there.
    """
    path = run / "receipt.parquet"
    table = _table(path)
    settings = TrainSettings(**read_record(run / "run.json")["identity"]["settings"])
    index = _index_of(path, table.schema.metadata or {}, settings, index)
    steps = int(read_json(run / "summary.json")["steps"])
    total = steps * settings.batch_size
    seed, block = seed_of(settings, "data"), settings.shuffle_block
    order = DataOrder(index.buckets, settings.batch_size, seed, block, index.weights)
    draws = CaptionDraws(index, settings)
    with sorter(run) as connection:
        connection.register("receipt", table)
        problems = _wrong_shares(_counted(table), settings, total)
        count_draws(connection, "drawn", declared(order, draws, steps), index, draws.kinds)
        return problems + differences(connection, total)


def declared(order: DataOrder, draws: CaptionDraws, steps: int) -> Iterator[Records]:
    """The records that a run of `steps` steps must have, step by step."""
    for step in range(steps):
        rows, epochs = order.batch(step)
        yield records_of(step, rows, draws.draw(rows, epochs))


def _index_of(
    path: Path, notes: dict[bytes, bytes], settings: TrainSettings, index: TrainingIndex | None
) -> TrainingIndex:
    mark, _, place = notes.get(_INDEX_NOTE, b"").decode().partition(" ")
    if index is None:
        if not mark or not Path(place, "index.json").exists():
            raise DatasetError(
                f"The index that {path} was drawn from is gone; the same `caplab train` makes it "
                f"again."
            )
        index = TrainingIndex(Path(place))
    if index.fingerprint_of(blend_order(settings.captions)) != mark:
        raise DatasetError(f"{index.folder} is not the index that {path} was drawn from.")
    return index


def _wrong_shares(receipt: Receipt, settings: TrainSettings, total: int) -> list[str]:
    from scipy.stats import binomtest

    if receipt.total != total:
        return [f"it holds {receipt.total:,} draws, and the steps made {total:,}."]
    kinds = sorted({*settings.captions, *receipt.wanted})
    shares = {
        kind: (receipt.wanted.get(kind, 0), settings.captions.get(kind, 0.0)) for kind in kinds
    }
    shares["dropped captions"] = receipt.dropped, settings.prompt_dropout_prob
    return [
        f"{name}: {count:,} of {total:,} draws ({count / total:.2%}), where {share:.2%} was "
        f"declared; chance gives as much in fewer than one of a million runs."
        for name, (count, share) in shares.items()
        if binomtest(count, total, min(share, 1.0)).pvalue < _LEAST_LIKELY
    ]


# ---- files ---------------------------------------------------------------------------------------


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is missing or unreadable ({error}).") from error
    if "wanted" in table.column_names:
        return table
    return table.append_column("wanted", table["kind"])  # from before blends could fall back


def _counted(table: Any) -> Receipt:
    import pyarrow.compute as pc

    def by(column: str) -> dict[str, int]:
        sums = table.group_by(column).aggregate([("draws", "sum")]).sort_by(column).to_pylist()
        return {row[column]: row["draws_sum"] for row in sums}

    def of(rows: Any) -> int:
        return int(table.filter(rows)["draws"].to_numpy().sum())

    fell_back = of(pc.not_equal(table["kind"], table["wanted"]))
    return Receipt(by("kind"), of(table["dropped"]), by("wanted"), fell_back)


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
        with open(path, "rb") as file:
            while len(some := np.fromfile(file, RECORD, AT_A_TIME)):
                yield some[some["step"] < end]


def _refuse_gaps(folder: Path, steps: int, batch_size: int) -> None:
    counts = np.zeros(steps, np.int64)
    for some in _written(folder, steps):
        counts += np.bincount(some["step"], minlength=steps)
    wrong = np.flatnonzero(counts != batch_size)
    if len(wrong):
        raise DatasetError(
            f"{folder} has {counts[wrong[0]]:,} draws of step {wrong[0]:,} on record, and a step "
            f"makes {batch_size:,}; the run cannot say what it was trained on, so train it anew."
        )
