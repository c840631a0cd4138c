"""`caplab ablate`: train the arms, draw the same prompts with each, judge, and compare.

Everything that one run needs (training, drawing, judging) happens in one worker. What is there is
kept: the same command with a larger experiment trains, draws and judges what is missing alone. The
tables are computed from the kept scores.

OUT/
  study.json               what was declared, and which runs make up the study
  prompts.parquet          what every run draws
  runs/                    see pipelines.ablation.runs
  results/*.parquet        the tables: pipelines.ablation.schemas
  run.json                 the answer in words, with what the study cannot say
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.files import atomic_path, remove_leftovers, write_json
from curate.base.provenance import provenance
from curate.base.telling.summaries import Summary
from curate.store.claims import claim_directory
from curate.store.lock import hold
from pipelines.ablation.finished import texts
from pipelines.ablation.judged import JudgeSpec, judge_missing
from pipelines.ablation.kept import Kept, collect, record_study, write_prompts
from pipelines.ablation.pictures import Asked, Drawing, draw, keep_asked, missing
from pipelines.ablation.runs import RECORD, Run
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import Study, prepare
from pipelines.ablation.tables import study_tables, text_table
from pipelines.judges.protocol import Pictures
from pipelines.runners.choice import open_runner
from pipelines.runners.settings import RunnerSettings
from pipelines.runners.training import TrainingJob, gpus_each, run_jobs

LIMITS = (
    "An ablation compares recipes at one model size, one budget and one data set; it does not "
    "say how the difference grows with scale.",
    "Intervals over few seeds are wide and rest on the t distribution; with one seed nothing is "
    "claimed.",
)


@dataclass(frozen=True)
class AblationSummary(Summary):
    """Where the results are, and the answer in numbers, in words and as a plain-text table."""

    directory: Path
    headline: list[str]
    table: str = field(repr=False)
    images: int
    """Training pictures of the first arm."""
    arms: list[dict[str, Any]] = field(repr=False)
    """The rows of results/arms.parquet: mean and interval of each arm, place and metric."""
    declared: list[dict[str, Any]]
    """The rows of results/contrasts.parquet that were declared before the run."""

    def text(self) -> str:
        """What the command prints."""
        lines = [self.table, "", *self.headline, "", f"results: {self.directory / 'results'}"]
        return "\n".join(lines)


def ablate(dataset_dir: Path | str, out: Path | str, settings: AblateSettings) -> AblationSummary:
    """Run a study, or continue one, or add to it what is declared by now.

    Every arm of a seed starts from the same weights and sees the same noise, timesteps and
    dropout; arms of one selection see the same pictures in the same order: those that have a
    caption of every kind that any of these arms uses. Cost: arms x seeds training runs, and
    prompts x noises pictures each; equal arms share their runs.

    Raises:
        ConfigError: settings, captions or prompts are not what the arms need.
        DatasetError: the directory is no dataset, `out` is something else, somebody else writes
            there, or a run's receipt is not what its arm declares.
        StageError: a run failed; the same command continues.
    """
    from train.data.receipt import refuse_wrong_receipt

    out = Path(out).absolute()
    with hold(out):
        study = prepare(dataset_dir, settings, out)
        claim_directory(out, out / RECORD, "study", {"study": 1}, provenance(settings))
        record_study(out, settings, study)
        write_prompts(out, study.asked)
        runs = Path(settings.runs or out / "runs").absolute()
        work = [run for run in study.runs if unfinished(run, study)]
        with hold(runs, [run.folder for run in work]):
            complete(study, settings, work)
        for run in study.runs:
            refuse_wrong_receipt(run.directory, run.index)
        return summarise(out)


def unfinished(run: Run, study: Study) -> bool:
    """Whether a run is to be trained, drawn with or judged."""
    if not run.is_trained:
        return True
    wanted = [study.asked.of(run.id, sampling) for sampling in study.samplings(run)]
    return any(missing(run.directory, own).num_rows for own in wanted) or any(
        spec.is_missing(run.directory, own) for spec in study.judges for own in wanted
    )


def complete(study: Study, settings: AblateSettings, work: list[Run]) -> None:
    """Train, draw and judge what is missing of some runs, side by side.

    Raises:
        StageError: a run failed; the others were finished.
    """
    for run in work:
        remove_leftovers(run.directory, below=True)
    names = {cell.run.id: f"{cell.arm}/{cell.seed}" for cell in reversed(study.cells)}
    jobs = [
        TrainingJob(
            name=names[run.id],
            dataset=study.dataset.directory,
            out=run.directory,
            settings=run.to_train,
            selection=run.selection,
            keys=run.keys,
            caption_sources=run.caption_sources,
            trained=run.is_trained,
            after=DrawAndJudge(
                run.id, study.asked, tuple(study.samplings(run)), tuple(study.judges)
            ),
        )
        for run in work
    ]
    with open_runner(settings.part(RunnerSettings)) as runner:
        gpus = gpus_each(runner, settings.gpus_per_run, study.device) if jobs else 0.0
        run_jobs(runner, jobs, settings.workers, settings.cpus_per_run, gpus)


@dataclass(frozen=True)
class DrawAndJudge:
    """What follows a training run: draw what is missing, judge, keep. Travels to the worker."""

    run_id: str
    asked: Asked
    samplings: tuple[Mapping[str, Any], ...]
    judges: tuple[JudgeSpec, ...]

    def __call__(self, job: TrainingJob) -> None:
        """In the run's directory."""
        device, precision = job.settings.device, job.settings.precision
        draw_and_judge(
            job.out, self.run_id, self.asked, self.samplings, self.judges, device, precision
        )


def draw_and_judge(
    directory: Path,
    run_id: str,
    asked: Asked,
    samplings: tuple[Mapping[str, Any], ...],
    judges: tuple[JudgeSpec, ...],
    device: str,
    precision: Any,
) -> None:
    """Draw and judge what is missing of a trained run; its model is loaded only to draw."""
    drawing = drawing_of(directory, device, precision)
    for sampling in samplings:
        wanted = asked.of(run_id, sampling)
        draw_and_judge_by(partial(drawing, **sampling), directory, wanted, judges, device)


def drawing_of(directory: Path, device: str, precision: Any) -> Callable[..., Pictures]:
    """`train.sample.generate` of a trained run, which is loaded once there is something to draw."""
    from train.assemble import load_trained
    from train.sample import generate

    model = None

    def drawing(prompts: list[str], keys: list[int], **sampling: Any) -> Pictures:
        nonlocal model
        model = model or load_trained(directory, device, precision)
        return generate(model, prompts, noise_keys=keys, **sampling)

    return drawing


def draw_and_judge_by(
    drawing: Drawing,
    directory: Path,
    wanted: pa.Table,
    judges: tuple[JudgeSpec, ...],
    device: str,
) -> None:
    """Draw and judge what is missing of `wanted` with any model; it is called only to draw."""
    keep_asked(directory, wanted)
    if missing(directory, wanted).num_rows:
        draw(directory, drawing, wanted)
    for spec in judges:
        judge_missing(directory, spec, wanted, device)


def summarise(out: Path) -> AblationSummary:
    """Write the tables of a finished study from its kept scores.

    Raises:
        DatasetError: a run lacks a picture or a score.
    """
    kept = Kept.open(out)
    found = collect(kept)
    declared = kept.settings.declaration()
    tables = study_tables(found["images"], found["sets"], declared)
    for name, table in {**found, **tables.named()}.items():
        with atomic_path(out / "results" / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
    lost, fell_back = texts.texts_lost(kept), texts.fell_back(kept)
    of_judges = dict.fromkeys(limit for spec in kept.judges for limit in spec.limits)
    write_json(
        out / "run.json",
        {
            **kept.record,
            "kind": "ablation",
            "headline": tables.headline,
            "limits": [*of_judges, *LIMITS, *fell_back, *kept.record["late"]],
            "primary": kept.settings.primary.resolved(),
            "trends": {name: dict(doses) for name, doses in declared.trends.items()},
            "undefined": tables.undefined,
            "texts_lost": lost,
            "prompts": kept.asked.prompts.num_rows,
        },
    )
    table = text_table(tables.arms, tables.undefined, kept.settings.primary.metric)
    table = "\n".join([table, "", *texts.told(lost), *fell_back]).rstrip()
    tested = [row for row in tables.contrasts.to_pylist() if row["declared"]]
    arms = tables.arms.to_pylist()
    return AblationSummary(out, tables.headline, table, kept.record["images"], arms, tested)
