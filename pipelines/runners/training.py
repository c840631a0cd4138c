"""Training runs, a few at a time, with one progress bar for all of them.

A job is one run: it trains in a worker and may go on there with what follows it (an ablation
generates and judges), so that weights and pictures never travel between processes. How far a run is
stands in a file beside its directory, which the driver reads now and then; that costs nothing that
shows, and needs nobody whom all of them have to call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from curate.base.errors import StageError
from curate.base.progress import progress, tell
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.protocol import Runner
from train.settings import TrainSettings

# Lines that a run writes of its steps; one a step would cost more than it tells.
_LINES = 100


@dataclass(frozen=True)
class TrainingJob:
    """One training run and what follows it.

    `keys` fixes the pictures, so that all jobs of an ablation see the same ones. `after` is
    called with the job once the weights are there; it must be importable (it travels by name).
    """

    name: str
    dataset: Path
    out: Path
    settings: TrainSettings
    selection: str
    keys: tuple[str, ...] | None = None
    caption_sources: dict[str, str] | None = None
    after: Callable[[TrainingJob], None] | None = None

    @property
    def told(self) -> Path:
        """Where the run writes how far it is, as long as it runs."""
        return self.out.with_name(f".{self.out.name}.progress")


def run_jobs(
    runner: Runner, jobs: Sequence[TrainingJob], workers: int, cpus: int = 1, gpus: float = 0.0
) -> None:
    """Run the jobs, at most `workers` at a time; finished ones return at once.

    Args:
        cpus: of each job.
        gpus: of each job, where the runner shares them out.

    Raises:
        CaplabError: a job's settings or data are wrong.
        StageError: a job failed; the others were finished and a rerun continues the failed ones
            from their last checkpoint.
    """
    if not jobs:
        return
    failures: dict[str, str] = {}
    steps = sum(job.settings.steps for job in jobs)
    for job in jobs:
        job.told.unlink(missing_ok=True)  # of a run that was killed
    with progress(steps, "train", "step") as bar:
        board = _Board(jobs, bar)
        # A worker serves one run after another: importing torch and diffusers costs seconds.
        crew = runner.workers(
            _Train(board.read), min(workers, len(jobs)), cpus=cpus, gpus=gpus, here=len(jobs) == 1
        )
        with crew as hands:
            for job, outcome in hand_out(hands, jobs, beat=board.read):
                board.end(job)
                if isinstance(outcome, Failed):
                    failures[job.name] = outcome.reason
    if failures:
        name, reason = min(failures.items())
        raise StageError(
            f"{len(failures)} of {len(jobs)} training runs failed, first {name}: {reason}. "
            f"The same command continues them from their last checkpoint."
        )


@dataclass
class _Told:
    """What a run has told so far."""

    read: int = 0  # bytes
    step: int = 0
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
        self.bar.set_postfix_str(
            ", ".join(f"{name} {told.doing}" for name, told in sorted(self._told.items()))[:60],
            refresh=False,
        )
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
            else:
                told.step, told.doing = news["step"], news["doing"]


# ---- inside of a worker -------------------------------------------------------------------------


class _Train:
    """Trains, then does what follows."""

    def __init__(self, heard: Callable[[], None] | None) -> None:
        """`heard`: called when there is news; stays behind when the work travels."""
        self._heard = heard

    def __getstate__(self) -> dict[str, object]:
        return {"_heard": None}

    def __call__(self, job: TrainingJob) -> None:
        def tell_of(**news: object) -> None:
            with open(job.told, "a", encoding="utf-8") as file:
                file.write(json.dumps(news) + "\n")
            if self._heard is not None:
                self._heard()

        def on_step(step: int, total: int) -> None:
            if step % max(1, total // _LINES) == 0 or step >= total:
                tell_of(step=step, doing=f"{step}/{total}")

        job.told.parent.mkdir(parents=True, exist_ok=True)
        tell_of(step=0, doing="starting")
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
        if job.after is not None:
            tell_of(step=job.settings.steps, doing="drawing")
            job.after(job)
