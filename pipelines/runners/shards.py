"""A stage over the shards that lack its tables: one shard a task, a rerun skips what is finished.

The hall's only job is to hand shards to workers. A worker is long-lived because importing torch and
loading weights costs seconds: it opens the stage once and then takes one shard after another. At
most one shard a worker is in flight, so the driver's memory does not grow with the dataset; the
cost is one task a shard. Tables are written by the stage itself, atomically, and never travel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from curate.base.errors import StageError
from curate.base.progress import progress, tell
from curate.base.telling.events import emit
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.protocol import Runner
from pipelines.runners.told import Board, telling
from pipelines.world.by_name import as_named


@dataclass(frozen=True)
class StageSummary(Summary):
    """What a stage did: shards done now, shards found finished, and its counters."""

    stage: str
    shards_done: int
    shards_skipped: int
    counts: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """One line for people."""
        done = f"{self.stage}: {amount(self.shards_done, 'shard')} done, {self.shards_skipped:,} "
        return done + ("was" if self.shards_skipped == 1 else "were") + " up to date"


def run_stage(
    runner: Runner,
    stage: Stage,
    dataset: Dataset,
    workers: int = 1,
    *,
    cpus: int = 1,
    gpus: float = 0.0,
    shards: Sequence[str] | None = None,
    here: bool = False,
) -> StageSummary:
    """Run `stage` over the shards that lack its tables.

    Args:
        workers: at most; fewer when there are fewer shards.
        cpus: of each worker, also its OMP_NUM_THREADS.
        gpus: of each worker, where the runner shares them out.
        shards: names of the shards; None means all of the dataset.
        here: a stage that costs less than a process; a local runner runs it in this one.

    Raises:
        CaplabError: the stage could not open (a setting or weights file is wrong).
        StageError: some shards failed twice; the others are done and a rerun takes up the rest.
    """
    names = list(shards if shards is not None else dataset.shards())
    todo = [shard for shard in names if not stage.is_done(dataset, shard)]
    if not todo:
        tell(f"{stage.name}: {len(names):,} of {amount(len(names), 'shard')} there before")
        return StageSummary(stage.name, 0, len(names))
    rows = {shard: rows_of(dataset, shard) for shard in names}
    total = sum(rows.values())
    finished = total - sum(rows[shard] for shard in todo)
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    if len(todo) < len(names):
        done = f"{len(names) - len(todo):,} of {amount(len(names), 'shard')}"
        tell(f"{stage.name}: {done} there before")
    if stage.opening:
        tell(as_named(stage.opening))
    with progress(total, f"{stage.name:<11}", initial=finished) as bar:
        board = Board(dataset.directory / f".told-{stage.name}", bar)
        crew = runner.workers(
            _ShardWork(stage, dataset, rows, board.read),
            1 if here else min(workers, len(todo)),
            cpus=cpus,
            gpus=gpus,
            here=here,
        )
        try:
            with crew as hands:
                for shard, outcome in hand_out(hands, todo, beat=board.read):
                    failed = isinstance(outcome, Failed)
                    told: dict[str, Any] = {
                        "stage": stage.name,
                        "shard": shard,
                        "rows": rows[shard],
                    }
                    if isinstance(outcome, Failed):
                        failures[shard] = outcome.reason
                        emit("shard failed", "error", **told, reason=outcome.reason)
                    else:
                        counts.update(outcome)
                        emit("shard", **told, counts=outcome)
                    board.end(shard, 0 if failed else rows[shard])
        finally:
            board.clear()
    if failures:
        shard, reason = min(failures.items())
        raise StageError(
            f"Stage {stage.name} failed on {len(failures)} of {amount(len(todo), 'shard')}, first "
            f"{shard}: {reason}. What was finished is kept; the same command takes up the rest."
        )
    return StageSummary(stage.name, len(todo), len(names) - len(todo), dict(counts))


class _ShardWork:
    """Opens a stage once, then runs it shard by shard."""

    def __init__(
        self, stage: Stage, dataset: Dataset, rows: Mapping[str, int], heard: Callable[[], None]
    ) -> None:
        """`heard`: called when there is news of a shard; stays behind when the work travels."""
        self._stage = stage
        self._dataset = dataset
        self._rows = rows
        self._heard: Callable[[], None] | None = heard
        self._opened = False

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_heard": None}

    def __call__(self, shard: str) -> dict[str, int]:
        if not self._opened:
            self._stage.open()
            self._opened = True
        folder = self._dataset.directory / f".told-{self._stage.name}"
        with telling(folder, shard, self._rows[shard], self._heard):
            return self._stage.run(self._dataset, shard)


def rows_of(dataset: Dataset, shard: str) -> int:
    """Rows of the input list in a shard."""
    return int(pq.read_metadata(dataset.input_path(shard)).num_rows)
