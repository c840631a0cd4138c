"""`caplab train`: one training run on Ray, on a selection with a blend of captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.captions import caption_writers, captioned_keys
from curate.dataset import Dataset
from curate.files import read_json
from curate.holes import refuse_holes
from curate.lock import hold
from pipelines.settings import TrainCommandSettings
from pipelines.training_jobs import TrainingJob, run_jobs
from train.settings import TrainSettings


@dataclass(frozen=True)
class TrainSummary:
    """Where the run is and how it ended."""

    directory: Path
    steps: int
    validation: str

    def text(self) -> str:
        """What the command prints."""
        return (
            f"{self.steps} steps done{self.validation}\n"
            f"run: {self.directory}\npipeline for diffusers: {self.directory / 'pipeline'}"
        )


def train(directory: Path | str, out: Path | str, settings: TrainCommandSettings) -> TrainSummary:
    """Train, or continue a run that was interrupted.

    Raises:
        ConfigError: a caption kind of the blend is not there, or settings are wrong.
        DatasetError: no dataset, no such selection, or `out` belongs to other settings.
        StageError: training failed; the same call continues from the last checkpoint.
    """
    dataset = Dataset.open(directory)
    refuse_holes(dataset, [settings.selection])
    dataset.selection_keys(settings.selection)
    caption_writers(dataset, list(settings.captions), settings.caption_sources)
    out = Path(out).absolute()
    job = TrainingJob(
        name=out.name,
        dataset=dataset.directory,
        out=out,
        settings=settings.part(TrainSettings).model_copy(update={"threads": settings.cpus}),
        selection=settings.selection,
        caption_sources=settings.caption_sources,
    )
    with hold(out):
        run_jobs([job], 1, settings.cpus, settings.gpus)
    summary = read_json(out / "summary.json")
    return TrainSummary(out, settings.steps, _validation(summary))


def plan(directory: Path | str, settings: TrainCommandSettings) -> str:
    """What `train` would do, without doing it."""
    dataset = Dataset.open(directory)
    refuse_holes(dataset, [settings.selection])
    selected = set(dataset.selection_keys(settings.selection))
    lines = [f"{len(selected):,} selected pictures"]
    for kind, share in settings.captions.items():
        have = captioned_keys(dataset, kind, settings.caption_sources.get(kind)) & selected
        lines.append(f"  {kind}: {share:.0%} of the blend, {len(have):,} pictures have one")
    seen = settings.steps * settings.batch_size
    lines.append(
        f"{settings.steps:,} steps of {settings.batch_size} pictures: "
        f"{seen / max(len(selected), 1):.1f} epochs, model {settings.model}"
    )
    return "\n".join(lines)


def _validation(summary: dict[str, object]) -> str:
    losses = summary.get("validation")
    if not isinstance(losses, dict) or not losses:
        return ""
    return "; validation loss " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items())
