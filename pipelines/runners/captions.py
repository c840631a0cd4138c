"""Captions by several workers: blocks of what is missing are handed out, counts come back.

A block names some pictures of one shard and the captions that each lacks. Its worker reads them
from the shard, captions them, and writes a part beside the tables; every worker opens the captioner
once. A shard that has all its captions is merged here, by a thread.

So a large shard is shared by all workers, nothing but names and counts travels, and memory is the
workers' blocks. Nothing depends on the order in which blocks are done: parts are named by what they
hold, and tables are sorted. A block is tried again with the same names, so its captions stand once.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from curate.base.errors import CaplabError, ConfigError, DatasetError, StageError
from curate.base.progress import progress, tell
from curate.base.telling.events import emit
from curate.base.telling.words import amount
from curate.store.dataset import Dataset
from pipelines.runners.caption_watch import Block, CaptionWatch
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.local import gpus_here
from pipelines.runners.protocol import Runner
from pipelines.runners.pulse import TellPulse
from pipelines.runners.told import Board, telling
from pipelines.terminal.failures import in_words
from recaption.captioning.collapse import Acceptance, Tally, note_collapse
from recaption.captioning.stage import CaptionStage
from recaption.engines.attention import watched_by

# A block whose worker died (a lost machine, a device that failed) is tried this often; a fault that
# repeats should be seen.
TRIES_OF_A_BLOCK = 3
# Blocks may fail, and the rest goes on; so many in one run are no accident (a full disk).
MOST_FAILED_BLOCKS = 10
# One is prepared and its last rows leave while the other one's generate.
BLOCKS_AT_ONCE = 2
# Blocks for each worker at the least, so that no worker is idle at the end for long.
_BLOCKS_A_WORKER = 4
# torch's and vLLM's: nothing works any more in this process, and another one has to go on.
_ENGINE_IS_GONE = ("AcceleratorError", "EngineDeadError")


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        missing: shard -> captions that it lacks; 0 where a run was killed before it could merge
            them; finished shards are left out.
        wanted: captions of all shards, with those that are there.
        block_captions: captions in a block.
        held: kind -> pictures that are not asked, since they have one; see `only_missing`.
        changed: captions that are asked for again; see `CaptionStage.changed`.
        losses: what happened each time that the captioner was lost; see CaptionWatch.
    """

    missing: dict[str, int]
    wanted: int
    block_captions: int
    held: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    losses: tuple[str, ...] = ()

    def told(self) -> str:
        """What `only_missing` leaves out, and what is made again; empty where there is nothing."""
        kinds = ", ".join(
            f"{kind} of {amount(count, 'picture')}" for kind, count in self.held.items() if count
        )
        told = [f"not asked, for somebody's is accepted already: {kinds}"] if kinds else []
        if self.changed:
            made = amount(self.changed, "is", "are")
            told.append(f"{made} made from captions that have changed; asked again")
        return "; ".join(told)


def plan_captions(stage: CaptionStage, dataset: Dataset, workers: int) -> Plan:
    """Count what every shard lacks. Cost: the samples and caption ids of each shard are read.

    Raises:
        DatasetError: the tar of a shard with missing captions is not there.
    """
    missing: dict[str, int] = {}
    wanted, changed, held = 0, 0, Counter[str]()
    slots = len(stage.plans) * stage.settings.samples_per_image
    for shard in dataset.shards():
        wanted += len(stage.wanted(dataset, shard))
        held.update(stage.held(dataset, shard))
        changed += stage.changed(dataset, shard)
        if not stage.is_done(dataset, shard):
            missing[shard] = len(stage.missing(dataset, shard))
            if not dataset.shard_path(shard).exists():
                raise DatasetError(
                    f"{dataset.shard_path(shard)} is missing; `caplab check {dataset.directory} "
                    f"--repair` fetches it again."
                )
    share = math.ceil(sum(missing.values()) / (workers * _BLOCKS_A_WORKER))
    # A run that should end after so many captions cannot end in the middle of a block.
    most = min(stage.settings.checkpoint_rows, stage.settings.stop_after_unaccepted or share)
    return Plan(missing, wanted, max(1, slots, min(most, share)), held, changed)


def caption_shards(
    runner: Runner, stage: CaptionStage, dataset: Dataset, workers: int, gpus: float = 0.0
) -> Plan:
    """Write every caption that is missing; what was planned.

    Args:
        workers: at most. One on this machine that drives a server is this process itself; any
            other is a process of its own, which may hang or die.
        gpus: of each worker, where the runner shares them out.

    Raises:
        ConfigError: a worker could not open the captioner, or its server fails the trial.
        StageError: some captions could not be written; all others are, and a rerun takes up these.
            Or none of those asked for was accepted, or none of the last `stop_after_unaccepted`:
            they are kept, and a rerun asks for them again.
    """
    if stage.only_missing is not None:
        stage.only_missing.fix(dataset)
    plan = plan_captions(stage, dataset, workers)
    if told := plan.told():
        tell(f"{stage.name}: {told}")
    if not plan.wanted and told:
        return plan
    if not plan.wanted:
        raise DatasetError(f"{dataset.directory} has no stored pictures that are to be captioned.")
    if not plan.missing:
        tell(f"{stage.name}: {plan.wanted:,} of {amount(plan.wanted, 'caption')} there before")
        return plan
    run = _Run(stage, dataset, plan)
    watch: CaptionWatch | None = None
    if run.total < plan.wanted:
        there = f"{plan.wanted - run.total:,} of {amount(plan.wanted, 'caption')}"
        tell(f"{stage.name}: {there} there before")
    remote = stage.captioner.engine == "http"
    if remote and run.total:
        stage.opened()  # what its server says to a trial is told before anything is started
    workers = max(1, min(workers, run.total))
    on_cpus = not gpus and (stage.settings.device == "cpu" or not gpus_here())
    at_once = BLOCKS_AT_ONCE if remote or not on_cpus else 1
    with progress(plan.wanted, stage.name, "caption", initial=plan.wanted - run.total) as bar:
        if run.total:
            # One CPU where a device or a server does the work; else a share of the CPUs, which are
            # the threads of matrix products.
            cpus = 1 if remote or not on_cpus else share_of_cpus(runner.machines(), workers)
            board = Board(_told(stage, dataset), bar)
            watch = CaptionWatch(
                _told(stage, dataset), stage.settings.stuck_after, run.give_up, board
            )
            crew = runner.workers(
                _BlockWork(stage, dataset, board.read),
                workers,
                cpus=cpus,
                gpus=gpus,
                at_once=at_once,
                here=remote,  # what is in a process of its own may hang or die
            )
            try:
                with crew as hands:
                    given = hand_out(
                        hands, run.blocks(), at_once, TRIES_OF_A_BLOCK, board.read, watch
                    )
                    for block, outcome in given:
                        if isinstance(outcome, Report):
                            watch.ended(block, outcome.slowest)
                        rows = run.take(block, outcome)
                        emit(
                            "part", stage=stage.name, shard=block.shard, part=block.name, rows=rows
                        )
                        board.end(block.name, rows)
                        if run.hopeless:
                            break
            finally:
                board.clear()
        run.finish()
    run.raise_what_is_left()
    return replace(plan, losses=tuple(watch.losses) if watch else ())


class _Run:
    """What the driver knows of a run."""

    def __init__(self, stage: CaptionStage, dataset: Dataset, plan: Plan) -> None:
        self._stage, self._dataset, self._plan = stage, dataset, plan
        self._left = dict(plan.missing)  # shard -> captions that nobody has written yet
        self.total = sum(self._left.values())
        self._failures: list[str] = []
        self._acceptance = Acceptance(stage.settings.stop_after_unaccepted)
        self._collapse: tuple[str, datetime] | None = None  # in words, and since when
        self._merger = ThreadPoolExecutor(1)
        self._merging: list[Future[pa.Table]] = []

    def blocks(self) -> Iterator[Block]:
        """Everything that is missing; a shard is looked at when its turn comes."""
        for shard, lacks in self._plan.missing.items():
            if lacks:
                parts = self._stage.blocks(self._dataset, shard, self._plan.block_captions)
                for number, part in enumerate(parts):
                    yield Block(f"{shard}-{number}", shard, part)

    def take(self, block: Block, outcome: Report | Failed) -> int:
        """Note what became of a block; the captions that were written.

        Raises:
            ConfigError: the captioner does not open; no other block will do better.
        """
        if isinstance(outcome, Failed):
            self._failures.append(outcome.reason)
            told = {"stage": self._stage.name, "shard": block.shard, "part": block.name}
            emit("part failed", "error", **told, reason=outcome.reason)
            return 0
        if outcome.fatal:
            raise ConfigError(outcome.fatal)
        if outcome.failure:
            self._failures.append(outcome.failure)
        if outcome.tally:
            self._acceptance.add(outcome.tally)
        self._collapse = self._collapse or outcome.collapse
        self._left[block.shard] -= outcome.captions
        if not self._left[block.shard]:
            self._merge(block.shard)
        return outcome.captions

    def give_up(self, block: Block, reason: str, detail: str) -> int:
        """Store a block's captions as failed; how many they are."""
        began = datetime.now(UTC)
        work = self._stage.work(self._dataset, block.shard, block.lacking)
        rows = self._stage.write_failed(self._dataset, work, reason, detail)
        return self.take(block, Report(rows.num_rows, Tally.of(rows, began)))

    @property
    def hopeless(self) -> bool:
        """Whether nothing more should be asked for."""
        failed = len(self._failures) >= MOST_FAILED_BLOCKS
        return failed or self._collapse is not None or self._acceptance.collapsed

    def finish(self) -> None:
        """Merge what is left in parts, where it is whole.

        Parts of a shard whose last block failed stay parts, and a rerun goes on from there.
        """
        for shard in list(self._left):
            if not self._stage.missing(self._dataset, shard):
                self._merge(shard)
        for merged in self._merging:
            merged.result()
        self._merger.shutdown()

    def raise_what_is_left(self) -> None:
        """Say in one sentence why captions are missing, if any are."""
        if self._acceptance.collapsed or (self._acceptance.fruitless and not self._collapse):
            self._collapse = self._acceptance.sentence("caption"), self._acceptance.since
        if self._collapse:
            sentence, since = self._collapse
            note_collapse(self._dataset, self._stage.source, since)
            raise StageError(sentence)
        if lost := sum(self._left.values()):
            reason = f", first: {self._failures[0]}" if self._failures else ""
            raise StageError(
                f"{lost:,} of {amount(self.total, 'caption')} could not be written{reason}. "
                f"What was written is kept; the same command takes up the rest."
            )

    def _merge(self, shard: str) -> None:
        del self._left[shard]
        self._merging.append(self._merger.submit(self._stage.finish, self._dataset, shard))


def share_of_cpus(machines: Sequence[int], workers: int) -> int:
    """CPUs a worker, as many as let all workers run side by side, each on one machine; 1 at least.

    Args:
        machines: CPUs of each.
    """
    for cpus in range(max(machines, default=1), 1, -1):
        if sum(machine // cpus for machine in machines) >= workers:
            return cpus
    return 1


def _told(stage: CaptionStage, dataset: Dataset) -> Path:
    return dataset.directory / f".told-{stage.source}"


# ---- inside of a worker -------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a worker made of a block.

    Attributes:
        captions: rows that were written.
        tally: of these rows.
        failure: why they could not be written.
        fatal: why the captioner did not open.
        slowest: seconds of the engine's slowest batch.
        collapse: that nothing the worker asks for is accepted any more, and since when.
    """

    captions: int = 0
    tally: Tally | None = None
    failure: str | None = None
    fatal: str | None = None
    collapse: tuple[str, datetime] | None = None
    slowest: float = 0.0


class _BlockWork:
    """Opens the captioner once; writes the captions of blocks, two at a time if it is asked to."""

    def __init__(
        self, stage: CaptionStage, dataset: Dataset, heard: Callable[[], None] | None
    ) -> None:
        """`heard`: called when there is news of a block; stays behind when the work travels."""
        self._stage = stage
        self._dataset = dataset
        self._heard = heard
        self._opened = False
        self._lock = threading.Lock()
        # The driver hears of a block late, and a server that refuses all is fast.
        self._acceptance = Acceptance(stage.settings.stop_after_unaccepted)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_lock": None, "_heard": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ = {**state, "_lock": threading.Lock()}

    def __call__(self, block: Block) -> Report:
        with self._lock:
            if self._acceptance.collapsed:
                collapse = self._acceptance.sentence("caption"), self._acceptance.since
                return Report(collapse=collapse)
            try:
                if not self._opened:
                    if (opening := self._pulse(block)) is not None:
                        opening.opening()
                    self._stage.open()
                    self._opened = True
                    if opening is not None:
                        opening.idle()
            except CaplabError as error:
                return Report(fatal=str(error))
        began = datetime.now(UTC)
        try:
            work = self._stage.work(self._dataset, block.shard, block.lacking)
            most = sum(len(slots) for slots in block.lacking.values())
            pulse = self._pulse(block)
            with (
                telling(_told(self._stage, self._dataset), block.name, most, self._heard),
                watched_by(pulse),
            ):
                alone = {"row_by_row": True} if block.alone else {}
                rows = self._stage.write(self._dataset, work, **alone)
        except Exception as error:
            # An engine turns a row's fault into its outcome, so this is the disk, or a defect: the
            # block is lost, told of, and the others go on.
            if type(error).__name__ in _ENGINE_IS_GONE:
                os._exit(1)
            known = isinstance(error, CaplabError)
            return Report(failure=str(error) if known else in_words(error))
        tally = Tally.of(rows, began)
        with self._lock:
            self._acceptance.add(tally)
        return Report(rows.num_rows, tally, slowest=pulse.slowest if pulse else 0.0)

    def _pulse(self, block: Block) -> TellPulse | None:
        """A server has its own limits of time, and nobody can end the driver itself."""
        if self._stage.captioner.engine == "http" or self._heard is not None:
            return None
        return TellPulse(_told(self._stage, self._dataset), block.name)
