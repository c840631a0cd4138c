"""The dry run of a fit: sizes, steps, and the time they will take."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from curate.base.telling.words import amount
from recaption.fit.loop import Measure, Training, train_captioner
from recaption.fit.model import Fitted
from recaption.fit.plan import loaded_start, new_start, place, plan_of, refuse_long, training_of
from recaption.fit.settings import FitSettings

_FIRST, _TIMED = 2, 4


def rehearse(source: Path | str, settings: FitSettings) -> str:
    """What a fit would do, with times from a few real steps of each training; stores nothing.

    Raises:
        ConfigError: as `fit`.
    """
    plan = plan_of(source, settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    start = new_start(plan) if settings.is_new else loaded_start(settings)
    refuse_long(plan, start)
    place(start, settings)
    lines = [f"{settings.base}: {start.parameters:,} parameters"]
    if refused := plan.refused():
        told = ", ".join(f"{n:,} {reason}" for reason, n in sorted(refused.items()))
        lines.append(f"left out: {told}")
    minutes = 0.0
    for name, pairs in plan.trainings():
        training = training_of(plan, name, pairs, start)
        own = training.steps * _seconds_a_step(start, training, settings) / 60
        minutes += own
        lengths = [len(ids) for ids in training.batches.captions]
        lines.append(
            f"{name}: {amount(len(training.batches), 'pair')} and "
            f"{len(training.held_out):,} held out, "
            f"{np.mean(lengths):.0f} tokens a caption ({max(lengths)} at most), "
            f"{amount(training.steps, 'step')} of {settings.batch_size * settings.accumulate}, "
            f"about {own:.1f} minutes"
        )
    return "\n".join([*lines, f"in all about {minutes:.1f} minutes, held-out losses not counted"])


def _seconds_a_step(fitted: Fitted, training: Training, settings: FitSettings) -> float:
    """Wall time of a step: a longer run minus a shorter one, so that set-up does not count."""
    short = settings.model_copy(update={"validations": 1, "checkpoints": (), "keep": "last"})

    def ignore(_share: float, _figures: Measure) -> None:
        return None

    times = []
    with tempfile.TemporaryDirectory() as scratch:
        for steps in (_FIRST, _FIRST + _TIMED):
            few = replace(training, steps=steps, held_out=training.held_out.first(1))
            began = time.perf_counter()
            train_captioner(fitted, few, short, Path(scratch) / str(steps), ignore)
            times.append(time.perf_counter() - began)
    return max(times[1] - times[0], 1e-6) / _TIMED
