"""`caplab train`: one training run, on a selection with a blend of captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import Field

from curate.base.settings import OPERATIONAL
from pipelines.runners.settings import RunnerSettings
from pipelines.terminal.options import PLACE, dataset_argument, settings_options
from pipelines.terminal.quiet import say
from train.settings import TrainSettings, model_config, settled, stored_settings

if TYPE_CHECKING:
    from curate.store.dataset import Dataset
    from train.vocabulary import UnknownWords


class TrainCommandSettings(TrainSettings, RunnerSettings):
    """One training run on a selection."""

    selection: str = Field("default", description="Selection of the dataset to train on.")
    caption_sources: dict[str, str] = Field(
        {}, description="Kind -> who wrote it, where several captioners wrote that kind."
    )
    cpus: int = Field(2, gt=0, description="CPU threads of the run.", json_schema_extra=OPERATIONAL)
    gpus: float = Field(0.0, ge=0, description="GPUs of the run.", json_schema_extra=OPERATIONAL)


@click.command("train")
@dataset_argument
@click.option("--out", required=True, type=PLACE, help="Run directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Check data and settings, print the plan, stop.")
@settings_options(TrainCommandSettings)
def command(directory: Path, out: Path, dry_run: bool, settings: TrainCommandSettings) -> None:
    """Train a text-to-image diffusion model on a selection with a blend of captions.

    \b
    Example:
      caplab train data/mine --selection good --captions descriptive=0.95,alt=0.05 \\
          --model photo-64 --steps 2000 --out runs/first

    OUT/pipeline is a folder that diffusers' `DiffusionPipeline.from_pretrained` loads.

    Words outside the model's vocabulary are counted first, also by --dry-run: over 5% of a caption
    kind are refused unless --allow-unknown-words is given.
    """
    say(f"reading selection {settings.selection} of {directory}")
    if dry_run:
        click.echo(plan(directory, settings))
        return
    click.echo(train(directory, out, settings).text())


@dataclass(frozen=True)
class TrainSummary:
    """Where the run is and how it ended."""

    directory: Path
    steps: int
    validation: str
    unknown_words: dict[str, float]
    """What kind of texts -> share of their words that are outside the vocabulary."""

    def text(self) -> str:
        """What the command prints."""
        return (
            f"{self.steps} steps done{self.validation}\n"
            f"words outside the vocabulary: "
            f"{', '.join(f'{s:.1%} of the {name}' for name, s in self.unknown_words.items())}\n"
            f"run: {self.directory}\npipeline for diffusers: {self.directory / 'pipeline'}"
        )


def train(directory: Path | str, out: Path | str, settings: TrainCommandSettings) -> TrainSummary:
    """Train, or continue a run that was interrupted.

    Raises:
        ConfigError: a caption kind of the blend is not there, or settings are wrong.
        DatasetError: no dataset, no such selection, or `out` belongs to other settings.
        StageError: training failed; the same call continues from the last checkpoint.
    """
    from curate.base.files import read_json
    from curate.store.captions import caption_writers
    from curate.store.dataset import Dataset
    from curate.store.holes import refuse_holes
    from curate.store.lock import hold
    from pipelines.runners.choice import open_runner
    from pipelines.runners.training import TrainingJob, run_jobs
    from train.vocabulary import refuse_unknown_words

    dataset = Dataset.open(directory)
    refuse_holes(dataset, [settings.selection])
    dataset.selection_keys(settings.selection)
    caption_writers(dataset, list(settings.captions), settings.caption_sources)
    out = Path(out).absolute()
    part = settled(settings.part(TrainSettings), stored_settings(out / "run.json"))
    if not (out / "summary.json").exists():
        refuse_unknown_words(_unknown_words(dataset, settings), settings.allow_unknown_words)
    job = TrainingJob(
        name=out.name,
        dataset=dataset.directory,
        out=out,
        settings=part.model_copy(update={"threads": settings.cpus}),
        selection=settings.selection,
        caption_sources=settings.caption_sources,
    )
    with hold(out), open_runner(settings.part(RunnerSettings)) as runner:
        run_jobs(runner, [job], 1, settings.cpus, settings.gpus)
    summary = read_json(out / "summary.json")
    return TrainSummary(out, settings.steps, _validation(summary), summary["unknown_words"])


def plan(directory: Path | str, settings: TrainCommandSettings) -> str:
    """What `train` would do, without doing it; it refuses what `train` refuses."""
    from curate.store.captions import caption_writers, captioned_keys
    from curate.store.dataset import Dataset
    from curate.store.holes import refuse_holes
    from train.vocabulary import refuse_unknown_words

    dataset = Dataset.open(directory)
    refuse_holes(dataset, [settings.selection])
    caption_writers(dataset, list(settings.captions), settings.caption_sources)
    part = settled(settings.part(TrainSettings))
    selected = set(dataset.selection_keys(settings.selection))
    lines = [f"{len(selected):,} selected pictures"]
    for kind, share in settings.captions.items():
        have = captioned_keys(dataset, kind, settings.caption_sources.get(kind)) & selected
        lines.append(f"  {kind}: {share:.0%} of the blend, {len(have):,} pictures have one")
    seen = settings.steps * settings.batch_size
    lines.append(
        f"{settings.steps:,} steps of {settings.batch_size} pictures: "
        f"{seen / max(len(selected), 1):.1f} epochs, model {settings.model}, on {part.device} in "
        f"{part.precision}"
    )
    unknown = _unknown_words(dataset, settings)
    refuse_unknown_words(unknown, settings.allow_unknown_words)
    lines += ["words outside the vocabulary:", *(f"  {count}" for count in unknown)]
    return "\n".join(lines)


def _unknown_words(dataset: Dataset, settings: TrainCommandSettings) -> list[UnknownWords]:
    """As the run will count them, from the captions alone.

    Raises:
        ConfigError: as the run would, also where no sample could be held out.
    """
    from curate.store.caption_blend import blend_order
    from train.shards import captions_of, held_out
    from train.vocabulary import vocabulary, vocabulary_kinds, words_unknown_to

    blend = blend_order(settings.captions)
    kinds = vocabulary_kinds(dataset, blend, settings.caption_sources)
    keys = dataset.selection_keys(settings.selection)
    captions = captions_of(dataset, keys, kinds, settings.caption_sources)
    if settings.missing_captions == "drop":
        kept = [row for row in range(len(keys)) if all(captions[kind][row] for kind in blend)]
        captions = {kind: [own[row] for row in kept] for kind, own in captions.items()}
        keys = [keys[row] for row in kept]
    held_out(keys, settings.validation_share, settings.validation_samples)
    tokenizer = vocabulary(model_config(settings), captions)
    return words_unknown_to(tokenizer, settings, captions)


def _validation(summary: dict[str, object]) -> str:
    losses = summary.get("validation")
    if not isinstance(losses, dict) or not losses:
        return ""
    return "; validation loss " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items())
