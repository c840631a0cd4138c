"""Training runs, a few at a time, with one progress bar for all of them.

A job is one run: it trains in a worker and may go on there with what follows it (an ablation
generates and judges), so that weights and pictures never travel between processes. How far a run is
stands in a file beside its directory, which the driver reads now and then; that costs nothing that
shows, and needs nobody whom all of them have to call.

One run may be several processes (`TrainingJob.processes`), which the runner starts, or which
torchrun has started: then each of them runs the command, and only rank 0 tells.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from curate.base.errors import StageError
from curate.base.progress import progress, tell
from pipelines.runners.hand_out import TRIES, Failed, hand_out
from pipelines.runners.protocol import Runner
from train.settings import TrainSettings

# Lines that a run writes of its steps; one a step would cost more than it tells.
_LINES = 100


@dataclass(frozen=True)
class TrainingJob:
    """One training run and what follows it.

    `keys` fixes the pictures, so that all jobs of an ablation see the same ones. `after` is
    called with the job once the weights are there; it must be importable (it travels by name).
    `trained`: the weights are there, so that `after` alone is left to do.
    """

    name: str
    dataset: Path
    out: Path
    settings: TrainSettings
    selection: str
    keys: tuple[str, ...] | None = None
    caption_sources: dict[str, str] | None = None
    after: Callable[[TrainingJob], None] | None = None
    processes: int = 1
    trained: bool = False

    @property
    def told(self) -> Path:
        """Where the run writes how far it is, as long as it runs."""
        return self.out.with_name(f".{self.out.name}.progress")


def run_jobs(
    runner: Runner, jobs: Sequence[TrainingJob], workers: int, cpus: int = 1, gpus: float = 0.0
) -> None:
    """Run the jobs, at most `workers` at a time; finished ones return at once.

    Args:
        cpus: of each process.
        gpus: of each process, where the runner shares them out.

    Raises:
        CaplabError: a job's settings or data are wrong.
        StageError: a job failed; the others were finished and a rerun continues the failed ones
            from their last checkpoint, or starts them again where there is none yet.
    """
    if not jobs:
        return
    failures: dict[str, str] = {}
    steps = sum(job.settings.steps for job in jobs)
    for job in jobs:
        job.told.unlink(missing_ok=True)  # of a run that was killed
    with progress(steps, "train", "step") as bar:
        board = _Board(jobs, bar)
        together = [job for job in jobs if job.processes > 1]
        for job in together:
            if (reason := _together(runner, job, cpus, gpus, board.read)) is not None:
                failures[job.name] = reason
            board.end(job)
        alone = [job for job in jobs if job.processes == 1]
        # A worker serves one run after another: importing torch and diffusers costs seconds.
        crew = runner.workers(
            _Train(board.read), min(workers, len(alone)), cpus=cpus, gpus=gpus, here=len(jobs) == 1
        )
        with crew as hands:
            for job, outcome in hand_out(hands, alone, beat=board.read):
                board.end(job)
                if isinstance(outcome, Failed):
                    failures[job.name] = outcome.reason
    if failures:
        name, reason = min(failures.items())
        raise StageError(
            f"{len(failures)} of {len(jobs)} training runs failed, first {name}: {reason}. "
            f"The same command continues each from its last checkpoint, or from the start where "
            f"there is none yet."
        )


def launched() -> int | None:
    """This process's rank where torchrun (or what sets the same variables) started it."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("RANK", "0")) if several else None


def gpus_each(runner: Runner, wanted: float | None, device: str) -> float:
    """GPUs of each process: as wanted, else one where there are any that it may use."""
    if device == "cpu":
        return 0.0
    return float(runner.gpus() > 0) if wanted is None else wanted


def follow(job: TrainingJob) -> None:
    """Train as a process that is not the first of those that torchrun started; says nothing."""
    _Train(None)(job)


def _together(
    runner: Runner, job: TrainingJob, cpus: int, gpus: float, beat: Callable[[], None]
) -> str | None:
    """Run one job in its processes; why it failed, each time that it was tried, or None."""
    reason = None
    for _ in range(TRIES):
        try:
            runner.together(_Train(None), job, job.processes, cpus=cpus, gpus=gpus, beat=beat)
        except StageError as error:
            reason = str(error)
        else:
            return None
    return reason


@dataclass
class _Told:
    """What a run has told so far."""

    read: int = 0  # bytes
    step: int = 0
    begun: int | None = None  # step that this try goes on from
    doing: str = ""


@dataclass
class _Board:
    """Reads what the runs tell, and moves the bar."""

    jobs: Sequence[TrainingJob]
    bar: tqdm
    _told: dict[str, _Told] = field(default_factory=dict)
    _done_steps: int = 0

    def read(self) -> None:
        """Look for news of every run that is under way."""
        for job in self.jobs:
            if job.told.exists():
                self._read(job)
        shown = sorted(self._told.items())
        words = (
            [told.doing for _, told in shown]
            if len(self.jobs) == 1
            else [f"{name} {told.doing.partition(',')[0]}" for name, told in shown]
        )
        self.bar.set_postfix_str(", ".join(words)[:72], refresh=False)
        steps = self._done_steps + sum(told.step for told in self._told.values())
        if steps != self.bar.n:
            self.bar.update(steps - self.bar.n)

    def end(self, job: TrainingJob) -> None:
        """A run is over, well or not."""
        if job.told.exists():
            self._read(job)
            job.told.unlink()
        self._told.pop(job.name, None)
        self._done_steps += job.settings.steps
        self.read()

    def _read(self, job: TrainingJob) -> None:
        told = self._told.setdefault(job.name, _Told())
        with open(job.told, "rb") as file:
            file.seek(told.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        told.read += len(whole)
        for line in whole.splitlines():
            news = json.loads(line)
            if "say" in news:
                tell(news["say"])
                continue
            told.step, told.doing = news["step"], news["doing"]
            if told.begun is None and "begun" in news:
                told.begun = news["begun"]
                # Steps of an earlier run would pass for speed.
                self.bar.initial += told.begun
                self.bar.n += told.begun
                self.bar.last_print_n += told.begun


# ---- inside of a worker -------------------------------------------------------------------------


class _Train:
    """Trains, then does what follows."""

    def __init__(self, heard: Callable[[], None] | None) -> None:
        """`heard`: called when there is news; stays behind when the work travels."""
        self._heard = heard

    def __getstate__(self) -> dict[str, object]:
        return {"_heard": None}

    def __call__(self, job: TrainingJob) -> None:
        first = int(os.environ.get("RANK", "0")) == 0

        def tell_of(**news: object) -> None:
            if not first:
                return
            with open(job.told, "a", encoding="utf-8") as file:
                file.write(json.dumps(news) + "\n")
            if self._heard is not None:
                self._heard()

        on_step = _Steps(tell_of)
        job.told.parent.mkdir(parents=True, exist_ok=True)
        tell_of(step=0, doing="starting")
        if not job.trained:
            from train.run import train  # seconds

            train(
                job.dataset,
                job.settings,
                job.out,
                selection=job.selection,
                keys=job.keys,
                caption_sources=job.caption_sources,
                on_step=on_step,
                say=lambda sentence: tell_of(say=sentence),
            )
        if job.after is not None and first:
            tell_of(step=job.settings.steps, doing="drawing")
            job.after(job)


class _Steps:
    """Tells of steps now and then, with loss and speed as the run last measured them."""

    def __init__(self, tell_of: Callable[..., None]) -> None:
        self._tell_of, self._begun = tell_of, False

    def __call__(self, step: int, total: int, pace: str) -> None:
        begun = {} if self._begun else {"begun": step - 1}
        if self._begun and step % max(1, total // _LINES) and step < total:
            return
        self._begun = True
        self._tell_of(step=step, doing=f"{step}/{total}{pace and ', '}{pace}", **begun)
