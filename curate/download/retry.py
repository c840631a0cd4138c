"""Fetch again what failed for a reason that can pass, and rewrite only the shards that gain by it.

A shard that gains samples gets a new tar and a new samples table, and two files cannot be renamed
at one moment. Both are therefore written beside the dataset first, then a note says that they are
complete, and only then do they take their places. A kill before the note leaves the old shard, a
kill after it is made good at the next start: `finish_retries` repeats what the note says. Nobody
opens the dataset in between (`Dataset.open` refuses).

    DIR/retry/00000/shard.tar, samples.parquet      complete once done.json stands beside them

What others made of the old samples stays: scores are completed by the samples that came later, only
alt captions and imported scores of the shard are written anew, and duplicates and selections notice
that the tables changed.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, sync_directory, write_json
from curate.base.reasons import Failure, Reason
from curate.download.settings import DownloadSettings
from curate.download.stage import DownloadStage
from curate.intake.imported_scores import forget_imported
from curate.store.contract import FAILED, RETRY_DIRECTORY, RETRY_NOTE, STORED, conform
from curate.store.dataset import Dataset
from curate.store.shards import iter_members, write_shard
from curate.store.stage import Stage
from curate.store.write_samples import Outcome, open_spool, sample_members, sample_rows

_ALT = "alt"  # the caption source that is made from the samples table alone


class RetryStage(Stage):
    """Fetches a finished shard's rows that failed for reasons that can pass.

    Cost: the rows that are tried, and one copy of the tar where any of them is stored now.
    """

    name: ClassVar[str] = "retry"
    needs = ("samples",)
    adds: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(self, settings: DownloadSettings) -> None:
        """The settings that the dataset was downloaded with; times and budgets may differ."""
        self._download = DownloadStage(settings)

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether nothing of the shard is worth another try."""
        return not dataset.has_shard("samples", shard) or not retryable(dataset, shard)

    def open(self) -> None:
        """As the download does."""
        self._download.open()

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Try again; returns stored and each reason, with its number of the rows tried."""
        rows = pq.read_table(dataset.input_path(shard))
        before = dataset.read_table("samples", shard)
        if before.column("key").to_pylist() != rows.column("key").to_pylist():
            raise DatasetError(
                f"The samples table of shard {shard} is not that of its input; `caplab check "
                f"{dataset.directory} --repair` stores it again."
            )
        positions = retryable(dataset, shard)
        folder = _folder(dataset, shard)
        shutil.rmtree(folder, ignore_errors=True)
        with open_spool(dataset, shard) as spool:
            found = self._download.fetch(rows, spool, positions)
            outcomes = [found[position] for position in positions]
            tried = rows.take(pa.array(positions, pa.int64()))
            after = _replaced(before, sample_rows(tried, outcomes, shard), positions)
            if all(isinstance(outcome, Failure) for outcome in outcomes):
                # The tar stays as it is. An unchanged table is not written, for what was made of
                # it would count as out of date.
                if not after.equals(before.select(after.column_names)):
                    dataset.write_table("samples", after, shard)
            else:
                new = sample_members(tried, outcomes, spool)
                _prepare(dataset, shard, after, new, _stored_keys(tried, outcomes))
                _apply(dataset, shard)
        return dict(
            Counter(o.reason.value if isinstance(o, Failure) else "stored" for o in outcomes)
        )


def retryable(dataset: Dataset, shard: str) -> list[int]:
    """Positions of the rows that failed for a reason that can pass."""
    table = dataset.read_table("samples", shard, columns=["status", "reason"])
    passing = pa.array([reason.value for reason in Reason if reason.may_pass])
    mask = pc.and_(
        pc.equal(table.column("status"), FAILED), pc.is_in(table.column("reason"), passing)
    )
    return [int(position) for position in pc.indices_nonzero(mask.combine_chunks()).to_pylist()]


def finish_retries(dataset: Dataset) -> int:
    """Make good what a killed retry left: finish the shards it had prepared, drop the rest.

    Returns:
        The number of shards that were finished now.
    """
    finished = 0
    for folder in sorted((dataset.directory / RETRY_DIRECTORY).glob("*")):
        if (folder / RETRY_NOTE).exists():
            _apply(dataset, folder.name)
            finished += 1
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return finished


def _prepare(
    dataset: Dataset,
    shard: str,
    samples: pa.Table,
    new: Iterator[tuple[str, dict[str, bytes]]],
    new_keys: Sequence[str],
) -> None:
    """Write the shard's next state beside the dataset; the note comes last."""
    folder = _folder(dataset, shard)
    order = samples.filter(pc.equal(samples.column("status"), STORED)).column("key").to_pylist()
    merged = _merged(order, set(new_keys), new, dataset.shard_path(shard))
    samples = samples.replace_schema_metadata(write_shard(folder / "shard.tar", merged))
    with atomic_path(folder / "samples.parquet") as temporary:
        pq.write_table(conform("samples", samples), temporary, compression="zstd")
    write_json(folder / RETRY_NOTE, {"shard": shard, "gained": len(new_keys)})


def _merged(
    order: Sequence[str],
    new_keys: set[str],
    new: Iterator[tuple[str, dict[str, bytes]]],
    tar: Path,
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Old and new samples in the order of the input; both come in that order already."""
    old = iter_members(tar)
    for key in order:
        name, members = next(new if key in new_keys else old, (None, {}))
        if name != key:
            raise DatasetError(
                f"{tar} holds other samples than its samples table; `caplab check --repair` on the "
                f"dataset stores it again."
            )
        yield key, members


def _apply(dataset: Dataset, shard: str) -> None:
    """Put the prepared files into their places. Repeating it after a kill does no harm."""
    folder = _folder(dataset, shard)
    forget_imported(dataset, shard)
    dataset.table_path("captions", shard, _ALT).unlink(missing_ok=True)
    for name, place in (
        ("shard.tar", dataset.shard_path(shard)),
        ("samples.parquet", dataset.table_path("samples", shard)),
    ):
        if (folder / name).exists():
            os.replace(folder / name, place)
            # It must survive a power cut before the note that asks for it is removed.
            sync_directory(place.parent)
    (folder / RETRY_NOTE).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _replaced(before: pa.Table, rows: pa.Table, positions: Sequence[int]) -> pa.Table:
    """The samples table with the rows at `positions` taken from `rows`."""
    now = conform("samples", rows.replace_schema_metadata(before.schema.metadata))
    both = pa.concat_tables([conform("samples", before).cast(now.schema), now])
    take = list(range(before.num_rows))
    for number, position in enumerate(positions):
        take[position] = before.num_rows + number
    return both.take(pa.array(take, pa.int64())).combine_chunks()


def _stored_keys(rows: pa.Table, outcomes: Sequence[Outcome]) -> list[str]:
    keys = rows.column("key").to_pylist()
    return [
        key for key, outcome in zip(keys, outcomes, strict=True) if not isinstance(outcome, Failure)
    ]


def _folder(dataset: Dataset, shard: str) -> Path:
    return dataset.directory / RETRY_DIRECTORY / shard
