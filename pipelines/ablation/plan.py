"""What a study would do, without training: every part is tried, and one step is timed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curate.base.telling.words import amount
from pipelines.ablation.judged import checked_scores
from pipelines.ablation.pictures import missing
from pipelines.ablation.run import unfinished
from pipelines.ablation.runs import Run
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import Study, prepare, sourced_sets
from pipelines.ablation.trial import primary_prompts, sample_pictures
from pipelines.judges.protocol import SetJudge
from train.data.captions import CaptionDraws

_STEPS = 3
"""Steps that are tried; the first one warms up and is not timed."""
_PICTURES = 16
_EXAMPLES = 2


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step, of a picture drawn, and of one judged."""

    step: float
    drawn: float
    judged: float

    def hours(self, steps: int, drawn: int, judged: int, workers: int) -> float:
        """Of what is missing, shared by workers that do not slow each other."""
        return (steps * self.step + drawn * self.drawn + judged * self.judged) / workers / 3600


def plan(dataset_dir: Path | str, settings: AblateSettings, out: Path | str) -> str:
    """What `ablate` would do; it refuses what `ablate` refuses.

    Derived caption sets are written into the dataset, as a study would write them; nothing is
    written into `out`.
    """
    out = Path(out).absolute()
    study = prepare(dataset_dir, settings, out)
    work = [run for run in study.runs if unfinished(run, study)]
    train = [run for run in work if not run.is_trained]
    steps = sum(run.settings.steps for run in train)
    drawn = sum(
        missing(run.directory, study.asked.of(run.id, sampling)).num_rows
        for run in work
        for sampling in study.samplings(run)
    )
    pace = timed(study, settings)
    judged = drawn * len(study.judges)
    hours = pace.hours(steps, drawn, judged, settings.workers)
    first = study.cells[0].run
    runs = {cell.arm: cell.run for cell in study.cells}
    arms = [
        f"  {name}: "
        + ", ".join(f"{kind} {share:.0%}" for kind, share in arm.captions.items())
        + (f", selection {arm.selection}" if arm.selection else "")
        + _falling_back(runs[name])
        for name, arm in settings.all_arms.items()
    ]
    falls_back = any(arm.missing_captions == "fallback" for arm in settings.all_arms.values())
    some = " (any of them, for an arm that falls back)" if falls_back else ""
    pictures = {run.selection: len(run.keys) for run in study.runs}
    primary = settings.primary
    lines = [
        *(
            f"{amount(count, 'picture')} of selection {name} with every caption kind that its arms "
            f"use{some}."
            for name, count in pictures.items()
        ),
        f"{amount(len(settings.all_arms), 'arm')}, {len(study.cells)} of arms and seeds, "
        f"{amount(len(study.runs), 'run')} of {amount(first.settings.steps, 'step')}, "
        f"{settings.workers} side by side, on {study.device} in {study.precision}; trained before: "
        f"{len(study.runs) - len(train)}.",
        *arms,
        f"{amount(study.asked.prompts.num_rows, 'prompt')}, "
        f"{amount(study.asked.noises, 'picture')} each, judged by "
        f"{', '.join(spec.name for spec in study.judges)}; still to be drawn: {drawn}.",
        f"A step takes {pace.step:.2g} s, a picture {pace.drawn:.2g} s to draw and "
        f"{pace.judged:.2g} s to judge: about {hours:.2g} hours.",
        *(f"Outside the vocabulary: {count}" for count in study.unknown),
        *(f"Cut: {count}." for count in study.cut if count.cut),
        *_examples(study, settings),
        f"Primary: {primary.metric} on {primary.form} prompts, {primary.wording} wordings.",
    ]
    return "\n".join(lines)


def _falling_back(run: Run) -> str:
    if run.settings.missing_captions != "fallback":
        return ""
    shares = CaptionDraws(run.index, run.settings).expected_shares()
    drawn = ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
    return f"; falling back, it will draw {drawn}"


def timed(study: Study, settings: AblateSettings) -> Pace:
    """Try some steps and pictures of the first arm, in a folder that is thrown away."""
    from train.assemble import load_trained
    from train.run import train
    from train.sample import generate

    run = study.cells[0].run
    moments: list[float] = []
    few = {"steps": _STEPS, "grid_size": 0, "validate_every": 0, "checkpoint_minutes": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        train(
            study.dataset,
            run.settings.model_copy(update=few),
            place,
            selection=run.selection,
            keys=run.keys,
            caption_sources=run.caption_sources,
            on_step=lambda *_: moments.append(time.perf_counter()),
            say=lambda _: None,
        )
        model = load_trained(place, study.device, run.settings.precision)
        rows = primary_prompts(settings, study.asked.prompts).slice(0, _PICTURES)
        texts = rows.column("prompt").to_pylist()
        drawing = _seconds(lambda: generate(model, texts, 0, **study.cells[0].sampling))
    judging = 0.0
    for spec in study.judges:
        judge = spec.made(study.device)
        if not isinstance(judge, SetJudge):
            pictures = sample_pictures(judge, rows, run.resolution)
            judging += _seconds(lambda: checked_scores(spec.name, judge, pictures, rows))  # noqa: B023
    step = (moments[-1] - moments[0]) / (len(moments) - 1)
    return Pace(step, drawing / rows.num_rows, judging / rows.num_rows / len(study.judges))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _examples(study: Study, settings: AblateSettings) -> list[str]:
    """Some captions before and after each derivation."""
    if not settings.caption_sets:
        return []
    from recaption.transforms.derive import examples

    lines = []
    for name, derivation in sourced_sets(settings).items():
        lines.append(f"{name} ({derivation.rule} of {derivation.of}):")
        for before, after in examples(study.dataset, name, derivation, _EXAMPLES):
            lines += [f"    {before}", f"    -> {after}"]
    return lines
