"""Run stages on Ray: one shard a call, few long-lived workers, a rerun skips what is finished.

The hall's only job is to hand shards to workers. A worker is an actor because importing torch and
loading weights costs seconds: it opens the stage once and then takes one shard after another. At
most one shard a worker is in flight, so the driver's memory does not grow with the dataset; the
cost is one task a shard. Tables are written by the stage itself, atomically, and never travel
through the object store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from curate.base.errors import CaplabError, StageError
from curate.base.progress import progress
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.failures import in_words
from pipelines.ray_session import ray_session

# A shard whose worker raised or died is tried once more on a fresh worker: a lost machine or a
# passing fault should not stop a run, a fault that repeats should be seen.
ATTEMPTS_PER_SHARD = 2


@dataclass(frozen=True)
class StageSummary:
    """What a stage did: shards done now, shards found finished, and its counters."""

    stage: str
    shards_done: int
    shards_skipped: int
    counts: dict[str, int] = field(default_factory=dict)


def run_stage(
    stage: Stage,
    dataset: Dataset,
    workers: int,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    shards: Sequence[str] | None = None,
) -> StageSummary:
    """Run `stage` over the shards that lack its tables, on Ray workers.

    Args:
        workers: actors at most; fewer when there are fewer shards.
        cpus_per_worker: CPUs that Ray reserves a worker; also its OMP_NUM_THREADS.
        shards: names of the shards; None means all of the dataset.

    Raises:
        CaplabError: the stage could not open (a setting or weights file is wrong).
        StageError: some shards failed twice; the others are done and a rerun takes up the rest.
    """
    names = list(shards if shards is not None else dataset.shards())
    todo = [shard for shard in names if not stage.is_done(dataset, shard)]
    if not todo:
        return StageSummary(stage.name, 0, len(names))
    rows = {shard: rows_of(dataset, shard) for shard in names}
    total = sum(rows.values())
    finished_rows = total - sum(rows[shard] for shard in todo)
    counts: Counter[str] = Counter()
    with ray_session(), progress(total, f"{stage.name:<11}", initial=finished_rows) as bar:
        for shard, shard_counts in _shard_results(
            stage, dataset, todo, min(workers, len(todo)), cpus_per_worker, gpus_per_worker
        ):
            counts.update(shard_counts)
            bar.update(rows[shard])
    return StageSummary(stage.name, len(todo), len(names) - len(todo), dict(counts))


def _shard_results(
    stage: Stage,
    dataset: Dataset,
    todo: Sequence[str],
    workers: int,
    cpus: float,
    gpus: float,
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield (shard, counts) as shards finish; raise StageError at the end if any failed."""
    import ray

    worker_class = ray.remote(_ShardWorker).options(num_cpus=cpus, num_gpus=gpus)

    def new_worker() -> Any:
        return worker_class.remote(stage, dataset)

    waiting = list(reversed(todo))
    attempts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    running: dict[Any, tuple[str, Any]] = {}

    def start(worker: Any) -> None:
        if waiting:
            shard = waiting.pop()
            attempts[shard] += 1
            running[worker.run.remote(shard)] = (shard, worker)

    for _ in range(workers):
        start(new_worker())
    while running:
        ready, _ = ray.wait(list(running), num_returns=1)
        shard, worker = running.pop(ready[0])
        try:
            outcome = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, CaplabError):
                raise cause from error
            outcome = None
            failures[shard] = in_words(error)
            worker = new_worker()
        if outcome is None:
            if attempts[shard] < ATTEMPTS_PER_SHARD:
                waiting.append(shard)
        else:
            failures.pop(shard, None)
            yield shard, outcome
        start(worker)
    if failures:
        shard, reason = next(iter(failures.items()))
        raise StageError(
            f"Stage {stage.name} failed on {len(failures)} of {len(todo)} shards, first "
            f"{shard}: {reason}. What was finished is kept; the same command takes up the rest."
        )


class _ShardWorker:
    """Opens a stage once, then runs it shard by shard in a Ray actor."""

    def __init__(self, stage: Stage, dataset: Dataset) -> None:
        self._stage = stage
        self._dataset = dataset
        self._opened = False

    def run(self, shard: str) -> dict[str, int]:
        if not self._opened:
            self._stage.open()
            self._opened = True
        return self._stage.run(self._dataset, shard)


def rows_of(dataset: Dataset, shard: str) -> int:
    """Rows of the input list in a shard."""
    return int(pq.read_metadata(dataset.input_path(shard)).num_rows)
