"""Training runs side by side on Ray, with one progress bar for all of them.

A job is one run: it trains in its own worker and may go on there with what follows it (an
ablation generates and judges), so that weights and pictures never travel between processes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.base.errors import CaplabError, StageError
from curate.base.progress import progress, tell
from pipelines.failures import in_words
from pipelines.ray_session import ray_session
from train.settings import TrainSettings

POLL_SECONDS = 1.0


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


def run_jobs(
    jobs: Sequence[TrainingJob], workers: int, cpus_per_job: int = 1, gpus_per_job: float = 0.0
) -> None:
    """Run the jobs, at most `workers` at a time; finished ones return at once.

    Raises:
        CaplabError: a job's settings or data are wrong.
        StageError: a job failed; the others were finished and a rerun continues the failed ones
            from their last checkpoint.
    """
    import ray

    if not jobs:
        return
    failures: dict[str, str] = {}
    with ray_session(), progress(sum(j.settings.steps for j in jobs), "train", "step") as bar:
        board = ray.remote(_Board).options(num_cpus=0).remote()
        # A worker serves one run after another: importing torch and diffusers costs seconds.
        task = ray.remote(num_cpus=cpus_per_job, num_gpus=gpus_per_job, max_retries=1)(_run)
        waiting = list(reversed(jobs))
        running: dict[Any, TrainingJob] = {}
        done_steps = 0
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                running[task.remote(job, board, cpus_per_job)] = job
            ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
            for reference in ready:
                job = running.pop(reference)
                done_steps += job.settings.steps
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None)
                    if isinstance(cause, CaplabError):
                        raise cause from error
                    failures[job.name] = in_words(error)
            for sentence in ray.get(board.said.remote()):
                tell(sentence)
            under_way = {job.name for job in running.values()}
            states = {
                name: state
                for name, state in ray.get(board.read.remote()).items()
                if name in under_way
            }
            bar.set_postfix_str(
                ", ".join(f"{name} {what}" for name, (_, what) in sorted(states.items()))[:60],
                refresh=False,
            )
            bar.update(done_steps + sum(step for step, _ in states.values()) - bar.n)
    if failures:
        name, reason = next(iter(failures.items()))
        raise StageError(
            f"{len(failures)} of {len(jobs)} training runs failed, first {name}: {reason}. "
            f"The same command continues them from their last checkpoint."
        )


class _Board:
    """Where runs write how far they are (name -> step, what they are doing), and what to tell."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, str]] = {}
        self._sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self._sentences.append(sentence)

    def said(self) -> list[str]:
        """Sentences since the last look."""
        sentences, self._sentences = self._sentences, []
        return sentences

    def write(self, name: str, step: int, what: str) -> None:
        self._states[name] = (step, what)

    def read(self) -> dict[str, tuple[int, str]]:
        return self._states


def _run(job: TrainingJob, board: Any, cpus: int) -> None:
    """Inside a worker: train, then what follows."""
    # Ray sets OMP_NUM_THREADS for some schedulings only; torch must see the reserved CPUs.
    os.environ["OMP_NUM_THREADS"] = str(cpus)
    import ray

    from train.run import train

    reported: Counter[str] = Counter()

    def report(step: int, total: int) -> None:
        # A message every step would cost more than it tells.
        if step - reported[job.name] >= max(1, total // 100) or step >= total:
            reported[job.name] = step
            board.write.remote(job.name, step, f"{step}/{total}")

    train(
        job.dataset,
        job.settings,
        job.out,
        selection=job.selection,
        keys=job.keys,
        caption_sources=job.caption_sources,
        on_step=report,
        say=lambda sentence: ray.get(board.say.remote(sentence)),
    )
    if job.after is not None:
        board.write.remote(job.name, job.settings.steps, "drawing")
        job.after(job)
