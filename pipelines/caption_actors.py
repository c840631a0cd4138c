"""Captions on Ray Data: shards are read by tasks, captioned by a pool of actors, columns between.

    shards -> read what each lacks (tasks) -> caption and store (actors) -> finish shards (tasks)

Tasks turn shards into blocks of pictures with the captions that they lack; every
actor opens the captioner once, takes blocks of any shard, and writes their captions as parts beside
the tables. What comes back to the driver are counts. A shard that has all its captions is merged.

So a large shard is shared by all workers, Ray Data holds back the readers where the captioners are
slower, and the driver's memory grows by a few numbers a shard. Nothing depends on the order in
which blocks are done: parts are named by what they hold, and tables are sorted.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from curate.base.errors import CaplabError, ConfigError, DatasetError, StageError
from curate.base.progress import progress
from curate.store.dataset import Dataset
from pipelines.failures import in_words
from pipelines.ray_session import ray_session, told
from recaption.captioning.collapse import Acceptance, Tally, note_collapse
from recaption.captioning.stage import CaptionStage

# A batch whose worker died (a lost machine, a device that failed) is tried again this often; a
# fault that repeats should be seen.
RETRIES_OF_A_BATCH = 2
# Batches may fail, and the rest goes on; so many in one run are no accident (a full disk).
MOST_FAILED_BATCHES = 10
# Two blocks a worker: one is prepared and its last rows leave while the other one's generate.
BLOCKS_AT_ONCE = 2
# Blocks for each worker at the least, so that no worker is idle at the end for long.
_BLOCKS_A_WORKER = 4
_READERS = 2
# torch.AcceleratorError: nothing works any more in this process, and Ray starts another.
_DEVICE_FAILED = "AcceleratorError"
_REPORT = pa.schema(
    [
        ("shard", pa.string()),
        ("captions", pa.int64()),
        ("failure", pa.string()),  # of the whole block; then there is no shard
        ("fatal", pa.bool_()),  # the captioner did not open: no other block will do better
        ("tally", pa.string()),  # of the whole block, as JSON, in its first row
        ("collapsed", pa.string()),  # since when nothing that the worker asks for is accepted
    ]
)


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        missing: shard -> captions that it lacks; 0 where a run was killed before it could merge
            them; finished shards are left out.
        wanted: captions of all shards, with those that are there.
        block_captions: captions in a block.
        block_bytes: of its pictures, about.
    """

    missing: dict[str, int]
    wanted: int
    block_captions: int
    block_bytes: int


def plan_captions(stage: CaptionStage, dataset: Dataset, workers: int) -> Plan:
    """Count what every shard lacks. Cost: the samples and caption ids of each shard are read.

    Raises:
        DatasetError: the tar of a shard with missing captions is not there.
    """
    missing: dict[str, int] = {}
    wanted = pictures = picture_bytes = 0
    slots = len(stage.plans) * stage.settings.samples_per_image
    for shard in dataset.shards():
        stored = len(stage.selected(dataset, shard))
        wanted += stored * slots
        if not stage.is_done(dataset, shard):
            missing[shard] = len(stage.missing(dataset, shard))
            pictures += stored
            picture_bytes += _tar_bytes(dataset, shard)
    share = math.ceil(sum(missing.values()) / (workers * _BLOCKS_A_WORKER))
    # A run that should end after so many captions cannot end in the middle of a block.
    most = min(stage.settings.checkpoint_rows, stage.settings.stop_after_unaccepted or share)
    captions = max(1, slots, min(most, share))
    mean_bytes = picture_bytes / max(1, pictures)
    return Plan(missing, wanted, captions, max(1, int(mean_bytes * captions / slots)))


def _tar_bytes(dataset: Dataset, shard: str) -> int:
    path = dataset.shard_path(shard)
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing; `caplab check {dataset.directory} --repair` fetches it again."
        ) from error


def caption_shards(
    stage: CaptionStage, dataset: Dataset, workers: int, gpus_per_worker: float = 0.0
) -> None:
    """Write every caption that is missing.

    Args:
        workers: actors at most.
        gpus_per_worker: that Ray reserves a worker.

    Raises:
        ConfigError: a worker could not open the captioner, or its server fails the trial.
        StageError: some captions could not be written; all others are, and a rerun takes up these.
            Or none of those asked for was accepted, or none of the last `stop_after_unaccepted`:
            they are kept, and a rerun asks for them again.
    """
    plan = plan_captions(stage, dataset, workers)
    if not plan.wanted:
        raise DatasetError(f"{dataset.directory} has no stored pictures that are to be captioned.")
    if not plan.missing:
        return
    done: Counter[str] = Counter()
    failures: list[str] = []
    left = dict(plan.missing)
    total = sum(left.values())
    acceptance = Acceptance(stage.settings.stop_after_unaccepted)
    collapse: tuple[str, datetime] | None = None  # in words, and since when
    if total and stage.captioner.engine == "http":
        stage.opened()  # what its server says to a trial is told before anything is started
    with (
        ray_session(),
        progress(plan.wanted, stage.name, "caption", initial=plan.wanted - total) as bar,
    ):
        finish = _Finisher(stage, dataset)
        # With all of them in parts that a killed run could not merge, there is nobody to ask.
        reports = _reports(stage, dataset, plan, min(workers, total), gpus_per_worker)
        for report in reports if total else ():
            if report["fatal"]:
                raise ConfigError(report["failure"])
            if report["collapsed"]:
                collapse = report["failure"], datetime.fromisoformat(report["collapsed"])
                break
            if report["failure"]:
                failures.append(report["failure"])
                if len(failures) >= MOST_FAILED_BATCHES:
                    break
                continue
            if report["tally"]:
                acceptance.add(Tally.from_json(report["tally"]))
            shard = report["shard"]
            done[shard] += report["captions"]
            bar.update(report["captions"])
            if done[shard] == left[shard]:
                finish.start(shard)
                del left[shard]
            if acceptance.collapsed:
                break
        reports.close()
        for shard in left:
            # Parts of a shard whose last block failed stay parts, and a rerun goes on from there.
            if not stage.missing(dataset, shard):
                finish.start(shard)
        finish.wait()
    if acceptance.collapsed or (acceptance.fruitless and not collapse):
        collapse = acceptance.sentence("captions"), acceptance.since
    if collapse:
        sentence, since = collapse
        note_collapse(dataset, stage.source, since)
        raise StageError(sentence)
    lost = sum(left.values()) - sum(done[shard] for shard in left)
    if lost:
        reason = f", first: {failures[0]}" if failures else ""
        raise StageError(
            f"{lost:,} of {total:,} captions could not be written{reason}. What was written is "
            f"kept; the same command takes up the rest."
        )


def _reports(
    stage: CaptionStage, dataset: Dataset, plan: Plan, workers: int, gpus: float
) -> Generator[dict[str, Any]]:
    """Run the blocks; yield shard, captions and failure of each."""
    import ray.data

    parts = {shard: stage.parts(dataset, shard) for shard, lacks in plan.missing.items() if lacks}
    with _quiet_context(plan.block_bytes):
        shards = ray.data.from_items(
            [{"shard": shard, "parts": json.dumps(names)} for shard, names in parts.items()],
            override_num_blocks=len(parts),
        )
        blocks = shards.map_batches(
            _Reader(stage, dataset, plan.block_captions),
            batch_size=1,
            batch_format="pyarrow",
            # Readers wait for the disk; a CPU of their own would be taken from the captioners,
            # and where those hold all, nobody would ever read.
            num_cpus=0,
            concurrency=min(_READERS, len(parts)),
        )
        with warnings.catch_warnings():
            # Ray 2.60 has no other way yet to bound the tries of an actor's task.
            warnings.filterwarnings("ignore", message=".*ray_remote_args")
            reports = blocks.map_batches(
                _Captioner,
                fn_constructor_args=(stage, dataset),
                batch_size=None,
                batch_format="pyarrow",
                zero_copy_batch=True,
                num_cpus=_cpus_of_a_worker(stage, workers, gpus),
                num_gpus=gpus or None,
                max_task_retries=RETRIES_OF_A_BATCH,
                compute=ray.data.ActorPoolStrategy(
                    # A pool that may shrink loses the workers that the first block does not reach.
                    size=workers,
                    max_tasks_in_flight_per_actor=BLOCKS_AT_ONCE + 1,
                    max_concurrent_calls_per_actor=BLOCKS_AT_ONCE,
                    enable_true_multi_threading=True,
                ),
            )
        try:
            for batch in reports.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                yield from batch.to_pylist()
        except Exception as error:
            raise told(error) from error


def _cpus_of_a_worker(stage: CaptionStage, workers: int, gpus: float) -> int:
    """CPUs that Ray reserves a worker, which are also the threads of its matrix products.

    One where a device or a server does the work; a captioner on CPUs gets its share of them.
    """
    import ray

    if gpus or stage.captioner.engine == "http":
        return 1
    machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return share_of_cpus(machines, workers)


def share_of_cpus(machines: Sequence[int], workers: int) -> int:
    """CPUs a worker, as many as let all workers run side by side, each on one machine; 1 at least.

    Args:
        machines: CPUs of each.
    """
    for cpus in range(max(machines, default=1), 1, -1):
        if sum(machine // cpus for machine in machines) >= workers:
            return cpus
    return 1


class _Reader:
    """Shards in, blocks of WORK out."""

    def __init__(self, stage: CaptionStage, dataset: Dataset, captions: int) -> None:
        self._stage = stage
        self._dataset = dataset
        self._captions = captions

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for row in shards.to_pylist():
            # The parts of earlier runs alone: a reader that Ray starts anew reads the same again.
            parts = json.loads(row["parts"])
            yield from self._stage.work(self._dataset, row["shard"], self._captions, parts)


class _Captioner:
    """Blocks of WORK in, their captions on the disk, counts out. Opens the captioner once."""

    def __init__(self, stage: CaptionStage, dataset: Dataset) -> None:
        self._stage = stage
        self._dataset = dataset
        self._lock = threading.Lock()
        self._opened = False
        # The driver hears of a block late, and a server that refuses all is fast.
        self._acceptance = Acceptance(stage.settings.stop_after_unaccepted)

    def __call__(self, work: pa.Table) -> pa.Table:
        # Here and not in the constructor, whose error Ray would report as a dead actor.
        try:
            with self._lock:
                if not self._opened:
                    self._stage.open()
                    self._opened = True
        except CaplabError as error:
            return _report([None], [0], str(error), fatal=True)
        # Ray joins blocks; a run that should end after so many captions asks for no more at once.
        slots = len(self._stage.plans) * self._stage.settings.samples_per_image
        most = self._stage.settings.stop_after_unaccepted or work.num_rows * slots
        step = max(1, most // slots)
        pieces = (work.slice(start, step) for start in range(0, work.num_rows, step))
        return pa.concat_tables([self._captioned(piece) for piece in pieces])

    def _captioned(self, work: pa.Table) -> pa.Table:
        """The report on a piece of a block."""
        with self._lock:
            if self._acceptance.collapsed:
                sentence, since = self._acceptance.sentence("captions"), self._acceptance.since
                return _report([None], [0], sentence, collapsed=since.isoformat())
        began = datetime.now(UTC)
        shards = dict(zip(*(work.column(n).to_pylist() for n in ("key", "shard")), strict=True))
        try:
            rows = self._stage.write(self._dataset, work)
        except Exception as error:
            # An engine turns a row's fault into its outcome, so this is the disk, or a defect: the
            # piece is lost, told of, and the others go on.
            if type(error).__name__ == _DEVICE_FAILED:
                os._exit(1)
            words = str(error) if isinstance(error, CaplabError) else in_words(error)
            return _report([None], [0], words)
        counts = Counter(shards[key] for key in rows.column("key").to_pylist())
        tally = Tally.of(rows, began)
        with self._lock:
            self._acceptance.add(tally)
        return _report(list(counts), list(counts.values()), None, tally=tally.to_json())


def _report(
    shards: Sequence[str | None],
    captions: Sequence[int],
    failure: str | None,
    fatal: bool = False,
    tally: str | None = None,
    collapsed: str | None = None,
) -> pa.Table:
    rows = {
        "shard": shards,
        "captions": captions,
        "failure": [failure] * len(shards),
        "fatal": [fatal] * len(shards),
        "tally": [tally] + [None] * (len(shards) - 1),
        "collapsed": [collapsed] * len(shards),
    }
    return pa.table(rows, schema=_REPORT)


class _Finisher:
    """Merges finished shards in Ray tasks, a few at a time."""

    def __init__(self, stage: CaptionStage, dataset: Dataset) -> None:
        import ray

        self._stage, self._dataset = ray.put(stage), ray.put(dataset)
        self._task = ray.remote(_finish_shard).options(num_cpus=0)
        self._running: list[Any] = []

    def start(self, shard: str) -> None:
        import ray

        if len(self._running) >= _READERS:
            ready, self._running = ray.wait(self._running, num_returns=1)
            ray.get(ready)
        self._running.append(self._task.remote(self._stage, self._dataset, shard))

    def wait(self) -> None:
        import ray

        ray.get(self._running)


def _finish_shard(stage: CaptionStage, dataset: Dataset, shard: str) -> None:
    stage.finish(dataset, shard)


@contextmanager
def _quiet_context(block_bytes: int) -> Iterator[None]:
    """Ray Data without its own bars and tables, with blocks of the size that is wanted."""
    import ray.data

    context = ray.data.DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "target_max_block_size": block_bytes,
        # A server that is away for a while (`patience`) is no reason to give up.
        "execution_no_progress_timeout_s": -1,
        # Half of a small machine's CPUs would be kept for readers, which need none.
        "op_resource_reservation_enabled": False,
    }
    before = {name: getattr(context, name) for name in wanted}
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # an error comes back as an exception, and is told once
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)
