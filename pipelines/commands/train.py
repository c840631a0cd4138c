"""`caplab train`: one training run, on a selection with a blend of captions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from pydantic import Field

from curate.base.errors import ConfigError
from curate.base.settings import OPERATIONAL, CaptionSources
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from pipelines.runners.settings import RunnerSettings
from pipelines.terminal.failures import Terminated
from pipelines.terminal.options import PLACE, dataset_argument, settings_options
from pipelines.terminal.quiet import say, show
from train.settings import (
    TrainSettings,
    model_config,
    settled,
    stored_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curate.store.dataset import Dataset
    from train.data.cache import Precomputed
    from train.data.index import TrainingIndex


class TrainCommandSettings(TrainSettings, RunnerSettings):
    """One training run on a selection."""

    GROUPS: ClassVar[dict[str, str]] = {
        "Model": "model",
        "Captions and pictures": "captions",
        "Seed and length": "seed",
        "Objective": "objective",
        "Optimiser": "muon_learning_rate",
        "Looking at it": "sampler",
        "Running": "precision",
        "Data": "selection",
    }
    RENAMED: ClassVar[dict[str, str]] = {**TrainSettings.RENAMED, "threads": "cpus"}
    EXPERT: ClassVar[str] = (
        "lora_alpha lora_targets quantise_base bucket_step condition_buckets "
        "condition_dropout_prob prior_loss_weight shuffle_block weights_seed data_seed "
        "noise_seed noise_schedule zero_terminal_snr snr_gamma timestep_mean timestep_std "
        "timestep_uniform_share sigma_data muon_momentum muon_steps adamw_betas "
        "max_skipped_steps noise_on activation_checkpointing"
    )

    selection: str = Field("default", description="Selection of the dataset to train on.")
    caption_sources: CaptionSources = Field(
        {},
        description="Kind -> who wrote it, where several captioners wrote that kind; a+b takes "
        "b's for pictures that have none by a.",
    )
    processes: int = Field(
        1,
        gt=0,
        description="Processes that train one model together, each with its share of a batch.",
        json_schema_extra=OPERATIONAL,
    )
    cpus: int = Field(
        2, gt=0, description="CPU threads of each process.", json_schema_extra=OPERATIONAL
    )
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs of each process, where Ray shares them out; none = one if there is any.",
        json_schema_extra=OPERATIONAL,
    )


@click.command("train")
@dataset_argument
@click.option("--out", type=PLACE, help="Run directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Check data and settings, show the plan, stop.")
@click.option("--sheet", type=PLACE, help="Where --dry-run writes its sheet.  [default: OUT.html]")
@click.option("--precompute", is_flag=True, help="Write pictures, latents and text features once.")
@settings_options(TrainCommandSettings)
def command(
    directory: Path,
    out: Path | None,
    dry_run: bool,
    sheet: Path | None,
    precompute: bool,
    settings: TrainCommandSettings,
) -> None:
    """Train a text-to-image diffusion model on a selection with a blend of captions.

    \b
    Example:
      caplab train data/mine --selection good --model photo-64 --steps 2000 \\
          --captions descriptive=0.95,alt=0.05 --out runs/first

    OUT/pipeline is a folder that diffusers' `DiffusionPipeline.from_pretrained` loads. The same
    command continues a run that was interrupted, and with more --steps one that was finished.

    --dry-run prints the plan and writes a page that shows what the model will see: pictures as they
    are cropped, captions as they are drawn and as the text encoder reads them.

    Words outside the vocabulary of a model that has one of its own are counted first, also by
    --dry-run: over 5% of a caption kind are refused unless --allow-unknown-words is given.

    Several processes: --processes N, or torchrun (docs/train.md).
    """
    if precompute:
        say(f"reading selection {settings.selection} of {directory}")
        show(write_caches(directory, settings, dry_run))
        return
    if out is None and not (dry_run and sheet):
        raise click.UsageError("Missing option '--out'.")
    if dry_run:
        say(f"reading selection {settings.selection} of {directory}")
        target = sheet or Path(f"{out}.html")
        show(plan(directory, settings, target))
        return
    summary = train(directory, Path(out or ""), settings)
    if summary is not None:
        show(summary)


@dataclass(frozen=True)
class TrainSummary(Summary):
    """Where the run is and how it ended."""

    directory: Path
    steps: int
    begun: int
    """Steps that the run had when it was finished before; 0 = it was not."""
    samples: int
    """Training pictures, without the held-out ones."""
    loss: float | None
    """Mean of the last steps; None where every one of them was skipped."""
    validation: dict[str, float]
    """Caption kind -> mean loss on the held-out pictures; empty where nothing is held out."""
    unknown_words: dict[str, float]
    """What kind of texts -> share of their words that are outside the vocabulary."""
    blend: dict[str, float]
    """Caption kind -> share of the captions drawn."""
    fell_back: float
    """Share of the captions drawn that are of another kind than the blend's draw."""

    def text(self) -> str:
        """What the command prints."""
        if 0 < self.begun < self.steps:
            done = f"steps {self.begun:,} to {self.steps:,} done"
        else:
            done = f"{amount(self.steps, 'step')} done"
        losses = ", ".join(f"{kind} {loss:.4f}" for kind, loss in self.validation.items())
        lines = [f"{done}; " + (f"validation loss {losses}" if losses else "nothing is held out")]
        if self.fell_back:
            drawn = ", ".join(f"{kind} {share:.1%}" for kind, share in self.blend.items())
            lines.append(f"captions drawn: {drawn}; {self.fell_back:.1%} of the draws fell back")
        if self.unknown_words:
            shares = (f"{share:.1%} of the {name}" for name, share in self.unknown_words.items())
            lines.append(f"words outside the vocabulary: {', '.join(shares)}")
        lines.append(f"run: {self.directory}")
        for name, what in (
            ("pipeline", "pipeline for diffusers"),
            ("lora", "adapters for diffusers"),
            ("learned_embeds.safetensors", "embeddings for diffusers"),
        ):
            if (self.directory / name).exists():
                lines.append(f"{what}: {self.directory / name}")
        return "\n".join(lines)


def train(
    directory: Path | str, out: Path | str, settings: TrainCommandSettings
) -> TrainSummary | None:
    """Train, or continue a run that was interrupted, or give a finished one more steps.

    Under torchrun every process calls it, and all but the first return None.

    Raises:
        ConfigError: a caption kind of the blend is not there, or settings are wrong.
        DatasetError: no dataset, no such selection, or `out` belongs to other settings.
        StageError: training failed; the same call continues from the last checkpoint.
    """
    from curate.store.dataset import Dataset
    from pipelines.runners.training import TrainingJob, follow, launched

    dataset, out = Dataset.open(directory), Path(out).absolute()
    job = TrainingJob(
        name=out.name,
        dataset=dataset.directory.absolute(),
        out=out,
        settings=settings.part(TrainSettings).model_copy(update={"threads": settings.cpus}),
        selection=settings.selection,
        caption_sources=settings.caption_sources,
        processes=settings.processes,
    )
    if (rank := launched()) is not None and settings.processes > 1:
        raise ConfigError("The processes were started by a launcher; leave --processes out.")
    if rank:
        follow(job)
        return None
    return _train(dataset, job, settings, rank is not None)


def _train(
    dataset: Dataset, job: Any, settings: TrainCommandSettings, is_launched: bool
) -> TrainSummary:
    from contextlib import nullcontext
    from dataclasses import replace

    from curate.base.files import read_json
    from curate.store.lock import hold
    from pipelines.runners.choice import open_runner
    from pipelines.runners.local import Local, gpus_here
    from pipelines.runners.training import gpus_each, run_jobs

    say(f"reading selection {settings.selection} of {dataset.directory}")
    _refuse(dataset, settings)
    out: Path = job.out
    before = read_json(out / "summary.json")["steps"] if (out / "summary.json").exists() else 0
    opened = (
        nullcontext(Local(False)) if is_launched else open_runner(settings.part(RunnerSettings))
    )
    with hold(out), opened as runner:
        gpus = gpus_each(runner, settings.gpus, settings.device)
        # Where only the workers have GPUs, they find out what `auto` is.
        if not (gpus and settings.device == "auto" and not gpus_here()):
            job = replace(job, settings=settled(job.settings, stored_settings(out / "run.json")))
        try:
            run_jobs(runner, [job], 1, settings.cpus, gpus)
        except (KeyboardInterrupt, Terminated):
            say(_where_it_goes_on(out, settings))
            raise
    summary = read_json(out / "summary.json")
    told = ("samples", "loss", "validation", "unknown_words", "blend")
    return TrainSummary(
        out,
        summary["steps"],
        before,
        fell_back=summary.get("fell_back", 0.0),
        **{name: summary[name] for name in told},
    )


def _refuse(dataset: Dataset, settings: TrainCommandSettings) -> None:
    """What can be seen to be wrong with the data before anything is read or started."""
    from curate.store.captions import caption_writers
    from curate.store.holes import refuse_holes

    refuse_holes(dataset, [settings.selection])
    dataset.selection_keys(settings.selection)
    caption_writers(dataset, list(settings.captions), settings.caption_sources)


def _where_it_goes_on(out: Path, settings: TrainCommandSettings) -> str:
    steps = sorted(int(path.stem) for path in out.glob("checkpoints/[0-9]*.safetensors"))
    if steps:
        return f"the last checkpoint of {out} is of step {steps[-1]:,}"
    due = f"{settings.checkpoint_minutes:g} minutes" if settings.checkpoint_minutes else "its steps"
    return f"{out} has no checkpoint yet (one is due every {due}); it begins at step 0 again"


def plan(directory: Path | str, settings: TrainCommandSettings, sheet: Path | None = None) -> str:
    """What `train` would do, without doing it; it refuses what `train` refuses.

    Args:
        sheet: where a page is written that shows what the model will see.
    """
    from curate.store.dataset import Dataset
    from train.data.captions import CaptionDraws
    from train.data.index import build_index
    from train.text.build import build_tokenizer
    from train.text.vocabulary import cut_texts, refuse_unknown_words, unknown_words

    dataset = Dataset.open(directory)
    _refuse(dataset, settings)
    part = settled(settings.part(TrainSettings))
    config = model_config(part)
    chosen = (dataset, part, config, settings.selection, settings.caption_sources)
    both = index, held_out = build_index(*chosen)
    tokenizer = build_tokenizer(config, chain.from_iterable(own.texts() for own in both))
    unknown = unknown_words(tokenizer, _texts(both, part))
    refuse_unknown_words(unknown, settings.allow_unknown_words)
    kinds = "every kind of the blend" if part.missing_captions == "fallback" else "a caption"
    lacking = amount(index.dropped, f"lacks {kinds} and is", f"lack {kinds} and are")
    left_out = f"; {lacking} left out" if index.dropped else ""
    lines = [
        f"{amount(len(index), 'training picture')}; "
        f"{amount(len(held_out), 'held-out one is', 'held-out ones are')} looked at{left_out}"
    ]
    taken = CaptionDraws(index, part).expected_shares()
    for kind, share in settings.captions.items():
        have = len(index) - index.lacking.get(kind, 0)
        of = amount(have, "picture has", "pictures have")
        line = f"  {kind}: {share:.0%} of the blend, {of} one"
        if part.missing_captions == "fallback":
            line += f"; {taken.get(kind, 0.0):.1%} of the draws will take it"
        lines.append(line)
    seen = settings.steps * settings.batch_size
    lines.append(
        f"{amount(settings.steps, 'step')} of {amount(settings.batch_size, 'picture')}: "
        f"{seen / len(index):.1f} epochs, model {settings.model}, on {part.device} in "
        f"{part.precision}{_shared(settings)}"
    )
    if unknown:
        lines += ["words outside the vocabulary:", *(f"  {count}" for count in unknown)]
    lines += [
        "cut at the text window:",
        *(f"  {count}" for count in cut_texts(tokenizer, _texts(both, part))),
    ]
    if sheet is not None:
        from pipelines.commands.train_sheet import write_sheet

        write_sheet(sheet, dataset, index, tokenizer, part)
        lines.append(f"what the model will see: {sheet}")
    return "\n".join(lines)


def _texts(
    both: tuple[TrainingIndex, TrainingIndex], settings: TrainSettings
) -> dict[str, Iterable[str]]:
    """What the run will read, by what it is: streams, to be read once."""
    from curate.store.caption_blend import blend_order

    texts: dict[str, Iterable[str]] = {
        f"{kind} captions": chain(*(own.texts([kind]) for own in both))
        for kind in blend_order(settings.captions)
    }
    return {**texts, "grid_prompts": settings.grid_prompts} if settings.grid_prompts else texts


def _shared(settings: TrainCommandSettings) -> str:
    """How a batch is divided, where it is.

    Raises:
        ConfigError: it does not divide.
    """
    parts = settings.processes * settings.gradient_accumulation_steps
    if settings.batch_size % parts:
        raise ConfigError(
            f"batch_size = {settings.batch_size} does not divide into {settings.processes} "
            f"processes times gradient_accumulation_steps = "
            f"{settings.gradient_accumulation_steps}."
        )
    return f", in {settings.processes} processes" if settings.processes > 1 else ""


def write_caches(
    directory: Path | str, settings: TrainCommandSettings, dry_run: bool
) -> Precomputed:
    """Write pictures or latents and text features of a selection once, or tell their bytes."""
    from curate.store.dataset import Dataset
    from train.data.cache import precompute_named

    dataset = Dataset.open(directory)
    _refuse(dataset, settings)
    part = settled(settings.part(TrainSettings))
    from_here = (settings.selection, settings.caption_sources)
    return precompute_named(dataset, part, *from_here, say=say, dry_run=dry_run)
