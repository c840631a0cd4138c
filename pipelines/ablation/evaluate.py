"""Pictures beside a study: kept ones judged later, and one model's, which claims nothing.

RUN/evaluation.parquet      the last evaluation of one model: columns of images.parquet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError, StageError
from curate.base.files import atomic_path, fingerprint, read_record, remove_leftovers
from curate.base.progress import progress
from curate.base.settings import Precision, device_of
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.lock import hold
from pipelines.ablation.finished.published import PublishedPipeline
from pipelines.ablation.judged import JudgeSpec, judge_missing, scores, set_scores
from pipelines.ablation.kept import Kept, KeptCell, images_of
from pipelines.ablation.metrics import metric
from pipelines.ablation.pictures import Asked, Drawing, asked_so_far, missing
from pipelines.ablation.run import AblationSummary, draw_and_judge_by, drawing_of, summarise
from pipelines.ablation.runs import RECORD, sampling_of, studied_id
from pipelines.ablation.trial import few, loaded_judges, refuse_small_sets
from pipelines.runners.choice import open_runner
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.settings import RunnerSettings

_TRIED_SIDE = 256
"""Of the pictures that judges are tried on before a published pipeline draws."""


@dataclass(frozen=True)
class Mean:
    """Of one metric over a run's pictures of one form and wording."""

    form: str
    wording: str
    metric: str
    mean: float
    pictures: int
    floor: float | None = None
    """Of a whole set's metric: what a second set of real pictures gets."""


@dataclass(frozen=True)
class Evaluation(Summary):
    """What judges say of one run's pictures."""

    directory: Path
    means: tuple[Mean, ...]

    def text(self) -> str:
        """What the command prints."""
        lines = [
            f"{self.directory}",
            f"{'form / wording':<28}{'metric':<32}{'mean':>10}{'pictures':>10}",
        ]
        for one in self.means:
            known, place = metric(one.metric), f"{one.form} / {one.wording}"
            lines.append(
                f"{place:<28}{known.column:<32}{known.shown(one.mean):>10}{one.pictures:>10}"
                + ("" if one.floor is None else f"  (floor {known.shown(one.floor)})")
            )
        lines.append("one model: exploratory; `caplab ablate` compares with seeds and intervals.")
        return "\n".join(lines)


def judge_kept(
    place: Path | str,
    name: str,
    options: Mapping[str, Any],
    device: str,
    workers: int = 1,
    runner: RunnerSettings | None = None,
) -> AblationSummary | Evaluation:
    """Have a judge score the kept pictures of a study or a run; what it has scored stays.

    Args:
        place: OUT of a study, whose tables then hold the judge's metrics, or a run's directory.
        device: of the judge; cpu, cuda or cuda:N.

    Returns:
        Of a study, what `ablate` returns.

    Raises:
        ConfigError: the judge cannot be had.
        DatasetError: there is nothing to judge.
        StageError: the judge failed.
    """
    place = Path(place).absolute()
    spec = JudgeSpec.of(name, options, device)
    if (place / RECORD).exists():
        with hold(place):
            return _judge_study(place, spec, device, workers, runner or RunnerSettings())
    wanted = asked_so_far(place)
    if wanted is None:
        raise DatasetError(
            f"{place} has no kept pictures: it is no study, nor a run that drew any; `caplab "
            f"evaluate {place} --prompts FILE` draws some."
        )
    with hold(place):
        judge_missing(place, spec, wanted, device)
    return evaluation_of(place, [spec], wanted)


def evaluate(
    run: Path | str,
    prompts: pa.Table,
    judges: Mapping[str, Mapping[str, Any]],
    noises: int = 1,
    generation_seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
) -> Evaluation:
    """Draw prompts with a trained model, judge the pictures, and keep both in its directory.

    Pictures that it has drawn before, in a study or here, are not drawn again.

    Args:
        run: or the folder of a pipeline in diffusers' layout, which draws by its own defaults.
        prompts: in the schema PROMPTS.
        judges: name -> options.

    Raises:
        ConfigError: a judge cannot be had.
        DatasetError: `run` is no finished training run, nor a pipeline.
        StageError: a judge failed.
    """
    run, device = Path(run).absolute(), device_of(device)
    model = _model(run, device, precision)
    specs = loaded_judges(judges, few(prompts), model.resolution, device)
    refuse_small_sets(specs, prompts, noises, device)
    cell = KeptCell(run.name, model.seed, run, model.id, model.sampling)
    wanted = cell.wanted(Asked(prompts, noises, generation_seed))
    with hold(run):
        remove_leftovers(run, below=True)
        draw_and_judge_by(model.drawing, run, wanted, tuple(specs), device)
    images = images_of(cell, wanted, specs)
    with atomic_path(run / "evaluation.parquet") as temporary:
        pq.write_table(images, temporary)
    return evaluation_of(run, specs, wanted)


@dataclass(frozen=True)
class _Model:
    """What is evaluated; `id` and `sampling` are of its pictures' identity."""

    id: str
    seed: int
    resolution: int
    sampling: Mapping[str, Any]
    drawing: Drawing


def _model(place: Path, device: str, precision: Precision) -> _Model:
    if (place / "model_index.json").exists():
        pipeline = PublishedPipeline(place, device, precision)
        return _Model(pipeline.mark, 0, _TRIED_SIDE, {}, pipeline)
    from train.assemble import recorded

    config, settings = recorded(place)
    sampling = sampling_of(settings, {})
    drawing = partial(drawing_of(place, device, precision), **sampling)
    return _Model(run_id(place), settings.seed, config.resolution, sampling, drawing)


def run_id(run: Path) -> str:
    """What the identity of a run's pictures begins with: as its study says, where it is of one."""
    return studied_id(run) or fingerprint(read_record(run / "run.json")["identity"])


def evaluation_of(run: Path, specs: list[JudgeSpec], wanted: pa.Table) -> Evaluation:
    """Means of one run's pictures by form and wording."""
    places = list(zip(wanted["form"].to_pylist(), wanted["wording"].to_pylist(), strict=True))
    means = []
    for spec in specs:
        for name, values in scores(run, spec, wanted).items():
            for own in dict.fromkeys(places):
                here = values[np.array([place == own for place in places]) & ~np.isnan(values)]
                if len(here):
                    means.append(Mean(*own, name, float(here.mean()), len(here)))
        for row in set_scores(run, spec, wanted):
            own = (row["form"], row["wording"])
            means.append(Mean(*own, row["metric"], row["value"], row["pictures"], row["floor"]))
    return Evaluation(run, tuple(means))


@dataclass(frozen=True)
class _Look:
    """One run's pictures, for a worker."""

    directory: Path
    wanted: pa.Table


class _Judging:
    """Judges run after run; the judge is made once a process."""

    def __init__(self, spec: JudgeSpec, device: str) -> None:
        self._spec, self._device = spec, device

    def __call__(self, task: _Look) -> None:
        judge_missing(task.directory, self._spec, task.wanted, self._device)


def _judge_study(
    out: Path, spec: JudgeSpec, device: str, workers: int, settings: RunnerSettings
) -> AblationSummary:
    kept = Kept.open(out)
    looks = [_Look(cell.directory, cell.wanted(kept.asked)) for cell in kept.cells]
    if lacking := sum(missing(look.directory, look.wanted).num_rows for look in looks):
        raise DatasetError(
            f"{out} lacks {amount(lacking, 'picture')}; the `caplab ablate` that made it draws "
            f"what is missing."
        )
    looks = [look for look in looks if spec.is_missing(look.directory, look.wanted)]
    failed = []
    with progress(len(looks), f"judge {spec.name}", "run") as bar, open_runner(settings) as runner:
        # Equal arms share a run, and two workers would do the same work.
        distinct = list({(str(w.directory), w.wanted["picture_id"][0]): w for w in looks}.values())
        if distinct:
            crew = runner.workers(
                _Judging(spec, device), min(workers, len(distinct)), here=workers == 1
            )
            with crew as hands:
                for look, outcome in hand_out(hands, distinct):
                    bar.update()
                    if isinstance(outcome, Failed):
                        failed.append(f"{look.directory}: {outcome.reason}")
    if failed:
        raise StageError(f"{amount(len(failed), 'run')} could not be judged, first {failed[0]}.")
    kept.with_judge(spec)
    return summarise(out)
