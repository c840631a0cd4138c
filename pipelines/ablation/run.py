"""`caplab ablate`: train the arms, draw the same prompts with each, judge, and compare.

Everything that one run needs (training, drawing, judging) happens in one worker; its results
are one Parquet file, written atomically, which marks the run as finished. The tables and the
report are computed from these files alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from curate.base.files import atomic_path, read_json, write_json
from curate.base.provenance import provenance
from curate.store.claims import claim_directory
from curate.store.lock import hold
from pipelines.ablation.judges import Judge, make_judge
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import Study, prepare
from pipelines.ablation.tables import (
    arms_table,
    contrasts_table,
    headline,
    left_out,
    text_table,
    unanswered,
    value_matrices,
)
from pipelines.runners.choice import open_runner
from pipelines.runners.settings import RunnerSettings
from pipelines.runners.training import TrainingJob, gpus_each, run_jobs

# Pictures kept of each arm, seed and prompt form, for the report's grids.
KEPT_PICTURES = 16

LIMITS = (
    "An ablation compares recipes at one model size, one budget and one data set; it does not "
    "say how the difference grows with scale.",
    "Descriptive prompts may share their wording with descriptive training captions; part of a "
    "difference on them is style and not information. Short prompts are shown for that reason.",
    "Intervals over few seeds are wide and rest on the t distribution; with one seed nothing is "
    "claimed.",
)


@dataclass(frozen=True)
class AblationSummary:
    """Where the results are, and the answer in words and as a plain-text table."""

    directory: Path
    headline: list[str]
    table: str
    images: int

    def text(self) -> str:
        """What the command prints."""
        lines = [self.table, "", *self.headline, "", f"results: {self.directory / 'results'}"]
        return "\n".join(lines)


def ablate(dataset_dir: Path | str, out: Path | str, settings: AblateSettings) -> AblationSummary:
    """Run the ablation, or continue one that was interrupted.

    Every arm of a seed sees the same pictures in the same order with the same initial weights,
    noise, timesteps and dropout; the pictures are those of the selection that have a caption of
    every kind that any arm uses. Cost: arms x seeds training runs, and scenes x prompt forms
    generated pictures each.

    Raises:
        ConfigError: settings, captions or prompts are not what the arms need.
        DatasetError: the directory is no dataset, or `out` belongs to other settings.
        StageError: a run failed; the same command continues.
    """
    out = Path(out).absolute()
    study = prepare(dataset_dir, settings, out / "ablation.json")
    with hold(out):
        return _ablate(study, out, settings)


def _ablate(study: Study, out: Path, settings: AblateSettings) -> AblationSummary:
    claim_directory(
        out, out / "ablation.json", "ablation run", study.identity, provenance(settings)
    )
    with atomic_path(out / "prompts.parquet") as temporary:
        pq.write_table(study.prompts, temporary)
    jobs = [
        TrainingJob(
            name=f"{arm}/{seed}",
            dataset=study.dataset.directory,
            out=run_directory(out, arm, seed),
            settings=study.train[arm].model_copy(update={"seed": seed}),
            selection=settings.selection,
            keys=study.keys,
            caption_sources=settings.caption_sources,
            after=DrawAndJudge(out, arm, seed, settings),
        )
        for seed in settings.seeds
        for arm in settings.arms
        if not part_path(out, arm, seed).exists()
    ]
    with open_runner(settings.part(RunnerSettings)) as runner:
        device = next(iter(study.train.values())).device
        gpus = gpus_each(runner, settings.gpus_per_run, device) if jobs else 0.0
        run_jobs(runner, jobs, settings.workers, settings.cpus_per_run, gpus)
    return summarise(out, settings, study)


def plan(dataset_dir: Path | str, settings: AblateSettings, out: Path | None = None) -> str:
    """What `ablate` would do, without doing it; it refuses what `ablate` refuses."""
    study = prepare(dataset_dir, settings, None if out is None else out / "ablation.json")
    first = next(iter(study.train.values()))
    runs = len(settings.arms) * len(settings.seeds)
    arms = "\n".join(
        f"  {name}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in blend.items())
        for name, blend in settings.arms.items()
    )
    unknown = "\n".join(f"  {count}" for count in study.unknown)
    return (
        f"{len(study.keys)} pictures have every caption kind that the arms use.\n"
        f"{len(settings.arms)} arms x {len(settings.seeds)} seeds = {runs} runs of {first.steps} "
        f"steps, {settings.workers} side by side, on {first.device} in {first.precision}.\n{arms}\n"
        f"{study.prompts.num_rows} prompts, judged by {settings.judge}.\n"
        f"Words outside the vocabulary:\n{unknown}\n"
        f"Primary: {settings.primary_metric} on {settings.primary_prompt_form} prompts."
    )


def run_directory(out: Path, arm: str, seed: int) -> Path:
    """Where the training run of one arm and seed lives."""
    return out / "arms" / arm / f"seed-{seed}"


def part_path(out: Path, arm: str, seed: int) -> Path:
    """The judged pictures of one run; its presence marks the run as finished."""
    return out / "results" / "parts" / f"{arm}-seed-{seed}.parquet"


@dataclass(frozen=True)
class DrawAndJudge:
    """What follows a training run: draw every prompt, judge, store. Travels to the worker."""

    out: Path
    arm: str
    seed: int
    settings: AblateSettings

    def __call__(self, job: TrainingJob) -> None:
        from train.assemble import load_trained
        from train.sample import generate

        model = load_trained(job.out, job.settings.device, job.settings.precision)
        judge = make_judge(self.settings, job.settings.device)
        prompts = pq.read_table(self.out / "prompts.parquet")
        tables = []
        for form in dict.fromkeys(prompts.column("prompt_form").to_pylist()):
            rows = prompts.filter(pa.compute.equal(prompts.column("prompt_form"), form))
            texts = rows.column("prompt").to_pylist()
            scenes = rows.column("scene").to_pylist()
            # The noise of a prompt depends on its index alone: arms, seeds and forms share it.
            pictures = generate(model, texts, seed=self.settings.generation_seed)
            columns = judge.score(pictures, texts, scenes, form)
            tables.append(_part(self.arm, self.seed, rows, columns, pictures, judge))
        with atomic_path(part_path(self.out, self.arm, self.seed)) as temporary:
            pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")


def summarise(out: Path, settings: AblateSettings, study: Study) -> AblationSummary:
    """Write the tables of a finished ablation from its parts.

    Raises:
        DatasetError: a run's receipt is not what its arm declares.
    """
    from train.data.receipt import refuse_wrong_receipt

    for arm in settings.arms:
        for seed in settings.seeds:
            refuse_wrong_receipt(run_directory(out, arm, seed))
    parts = [
        pq.read_table(part_path(out, arm, seed)) for arm in settings.arms for seed in settings.seeds
    ]
    results = pa.concat_tables(parts)
    matrices = value_matrices(results, settings.seeds)
    arms = arms_table(matrices)
    primary = (settings.primary_metric, settings.primary_prompt_form)
    contrasts = contrasts_table(matrices, settings.contrasts, *primary)
    for name, table in (
        ("images", results),
        ("arms", arms),
        ("contrasts", contrasts),
        ("blend", _blend_table(out, settings)),
    ):
        with atomic_path(out / "results" / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
    answer = headline(contrasts) + unanswered(contrasts, settings.contrasts, *primary)
    undefined = left_out(matrices)
    limits = [*study.judge.limits, *LIMITS]
    if len(settings.seeds) < 5:
        limits.append(
            f"{len(settings.seeds)} seeds an arm: enough to see wide margins, not small ones."
        )
    write_json(
        out / "run.json",
        {
            **read_json(out / "ablation.json"),
            "kind": "ablation",
            "dataset_directory": str(study.dataset.directory),
            "headline": answer,
            "limits": limits,
            "arms": [{"name": name, "captions": blend} for name, blend in settings.arms.items()],
            "seeds": list(settings.seeds),
            "primary_metric": settings.primary_metric,
            "primary_prompt_form": settings.primary_prompt_form,
            "undefined": undefined,
            "images": len(study.keys),
            "prompts": study.prompts.num_rows,
        },
    )
    table = text_table(arms, len(settings.seeds), undefined)
    return AblationSummary(out, answer, table, len(study.keys))


def _part(
    arm: str,
    seed: int,
    prompts: pa.Table,
    columns: dict[str, NDArray[np.float64]],
    pictures: NDArray[np.uint8],
    judge: Judge,
) -> pa.Table:
    rows = prompts.num_rows
    kept = min(KEPT_PICTURES, rows)
    pngs: list[bytes | None] = [_png(picture) for picture in pictures[:kept]]
    drawn = judge.targets(prompts.column("scene").to_pylist()[:kept], pictures.shape[1])
    targets = [None] * kept if drawn is None else [_png(picture) for picture in drawn]
    nothing: list[Any] = [None] * (rows - kept)
    described = {
        "arm": pa.array([arm] * rows, pa.string()),
        "seed": pa.array([seed] * rows, pa.int64()),
        "prompt_form": prompts.column("prompt_form"),
        "prompt_index": prompts.column("prompt_index"),
        "prompt": prompts.column("prompt"),
        "scene": prompts.column("scene"),
        "png": pa.array([*pngs, *nothing], pa.binary()),
        "target_png": pa.array([*targets, *nothing], pa.binary()),
    }
    metrics = {
        name: pa.array(values, pa.float64(), from_pandas=True) for name, values in columns.items()
    }
    return pa.table({**described, **metrics})


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _blend_table(out: Path, settings: AblateSettings) -> pa.Table:
    """blend.parquet: the share of each caption kind that a run declared and really saw."""
    rows: list[dict[str, Any]] = []
    for arm, blend in settings.arms.items():
        for seed in settings.seeds:
            realised = read_json(run_directory(out, arm, seed) / "summary.json")["blend"]
            for kind, share in blend.items():
                rows.append(
                    {
                        "arm": arm,
                        "seed": seed,
                        "kind": kind,
                        "share_declared": share,
                        "share_realised": float(realised.get(kind, 0.0)),
                    }
                )
    return pa.Table.from_pylist(rows)
