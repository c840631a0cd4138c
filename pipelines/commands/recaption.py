"""`caplab recaption`: a captioner writes captions for a selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click
from pydantic import Field

from curate.base.errors import ConfigError, StageError
from curate.base.files import write_json
from curate.base.settings import OPERATIONAL, precision_of
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from pipelines.runners.settings import RunnerSettings, WorkerSettings
from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import say, show
from pipelines.world.by_name import DemoByName, as_named
from recaption.captioning.settings import RecaptionSettings

if TYPE_CHECKING:
    from curate.store.dataset import Dataset
    from recaption.captioning.stage import CaptionStage


class RecaptionCommandSettings(RecaptionSettings, WorkerSettings, DemoByName):
    """Recaptioning, and how many workers do it."""

    GROUPS: ClassVar[dict[str, str]] = {"Prices": "price_per_hour"}

    workers: int = Field(
        1, gt=0, description="Workers side by side.", json_schema_extra=OPERATIONAL
    )
    price_per_hour: float = Field(
        0.0,
        ge=0,
        description="What one worker costs an hour, for the estimate of --dry-run.",
        json_schema_extra=OPERATIONAL,
    )
    price_per_million_input_tokens: float = Field(
        0.0,
        ge=0,
        description="What a provider asks for a million tokens read, for --dry-run.",
        json_schema_extra=OPERATIONAL,
    )
    price_per_million_output_tokens: float = Field(
        0.0,
        ge=0,
        description="What a provider asks for a million tokens written, for --dry-run.",
        json_schema_extra=OPERATIONAL,
    )


@click.command("recaption")
@dataset_argument
@settings_options(RecaptionCommandSettings)
@click.option(
    "--dry-run",
    "pictures",
    type=int,
    metavar="N",
    help="Caption N pictures, print rate and cost, store nothing.",
)
def command(directory: Path, pictures: int | None, settings: RecaptionCommandSettings) -> None:
    """Write captions with a vision-language model into the captions table.

    Every selected picture gets one row a kind: accepted, rejected by a gate, or failed with its
    reason. A killed run goes on with the same command, and asks for what is missing alone; other
    prompts or sampling stand beside, never over, what is there. --dry-run first tells the rate, and
    hours and money for the rest. docs/recaption.md says more.

    \b
    Examples:
      caplab recaption data/mine --captioner Qwen/Qwen2.5-VL-3B-Instruct \\
          --selection good --dry-run 20 --price-per-hour 2.5
      caplab recaption data/mine --captioner http://localhost:8000/v1 \\
          --served-model my-vlm --selection good --kinds descriptive
      caplab recaption data/mine --captioner Qwen/Qwen3-4B-Instruct-2507 \\
          --fuse alt,descriptive
    """
    say(f"opening the captioner {as_named(settings.captioner)}")
    if pictures is None:
        show(recaption(directory, settings))
        return
    if pictures < 1:
        raise ConfigError("--dry-run needs a number of pictures of 1 or more.")
    show(dry_run(directory, settings, pictures))


@dataclass(frozen=True)
class RecaptionSummary(Summary):
    """Who wrote, and how many captions were accepted, rejected and failed (all shards).

    Attributes:
        source: name of this captioner with these settings in the dataset.
        counts: "KIND STATUS" -> captions.
        reasons: "KIND REASON" -> captions that were not accepted.
        repeats: what `mark_near_duplicates` counted.
        losses: each time that the captioner died or hung, and over which pictures.
    """

    source: str
    counts: dict[str, int]
    reasons: dict[str, int]
    repeats: Mapping[str, int] = field(default_factory=dict)
    losses: Sequence[str] = ()

    def text(self) -> str:
        """What the command prints."""
        from recaption.gates.registry import NEAR_DUPLICATE

        if not self.counts:
            return "no caption was missing"
        lines = [f"{amount(sum(self.counts.values()), 'caption')} by {self.source}"]
        for counts in (self.counts, self.reasons):
            if counts:
                lines.append(", ".join(f"{name} {count:,}" for name, count in counts.items()))
        if repeats := self.repeats.get(NEAR_DUPLICATE):
            like = amount(repeats, "nearly repeats", "nearly repeat")
            lines.append(f"{like} the caption of another picture")
        if self.losses:
            times = "once" if len(self.losses) == 1 else f"{len(self.losses):,} times"
            lines.append(f"the captioner was started anew {times}, for")
            lines += [f"  {loss}" for loss in self.losses]
        if lost := self.repeats.get("lost"):
            lines.append(
                f"{lost:,} repeat nobody any more, but this version would not give their text "
                f"again; they stay rejected"
            )
        return "\n  ".join(lines)


def recaption(directory: Path | str, settings: RecaptionCommandSettings) -> RecaptionSummary:
    """Write every caption that is asked for and not there yet.

    Raises:
        ConfigError: the captioner, its device, a prompt file or the selection is not there.
        StageError: some shards failed, or nothing is accepted (any more); what was written is kept
            and the same call continues.
    """
    from curate.store.dataset import Dataset
    from curate.store.lock import writing

    dataset = Dataset.open(directory)
    stage = _stage(dataset, settings)
    with writing(dataset.directory, f"captions/{stage.source}"):
        return _recaption(dataset, stage, settings)


def _recaption(
    dataset: Dataset, stage: CaptionStage, settings: RecaptionCommandSettings
) -> RecaptionSummary:
    from curate.base.provenance import provenance
    from curate.store.dataset_card import write_dataset_card
    from curate.store.holes import note_finished
    from pipelines.runners.captions import caption_shards
    from pipelines.runners.choice import open_runner
    from recaption.captioning.drafts import OK
    from recaption.captioning.near_duplicates import mark_near_duplicates

    write_json(
        dataset.directory / "captioners" / f"{stage.source}.json",
        provenance(settings, {stage.captioner.model: stage.captioner.digest}),
    )
    with open_runner(settings.part(RunnerSettings)) as runner:
        plan = caption_shards(runner, stage, dataset, settings.workers, settings.gpus_per_worker)
    if stage.only_missing is not None:
        stage.only_missing.forget(dataset)
    if not plan.wanted:
        return RecaptionSummary(stage.source, {}, {})
    note_finished(dataset, f"captions/{stage.source}")
    write_dataset_card(dataset)
    repeats = mark_near_duplicates(dataset, stage.source, settings)
    counts, reasons = (_counts(dataset, stage.source, name) for name in ("status", "reason"))
    if not any(f"{kind} {OK}" in counts for kind in settings.kinds):
        told = ", ".join(f"{name} {count:,}" for name, count in reasons.items())
        raise StageError(
            f"None of {amount(sum(counts.values()), 'caption')} by {stage.source} is accepted "
            f"({told})."
        )
    return RecaptionSummary(stage.source, counts, reasons, repeats, plan.losses)


def dry_run(directory: Path | str, settings: RecaptionCommandSettings, pictures: int) -> str:
    """Caption `pictures` pictures, store nothing, and estimate the rest.

    Raises:
        ConfigError: as `recaption`, or nothing is left to be captioned.
    """
    from curate.store.dataset import Dataset
    from pipelines.runners.caption_rehearsal import Prices, rehearse

    dataset = Dataset.open(directory)
    prices = Prices(
        settings.price_per_hour,
        settings.price_per_million_input_tokens,
        settings.price_per_million_output_tokens,
    )
    return rehearse(dataset, _stage(dataset, settings), pictures, settings.workers, prices)


def _stage(dataset: Dataset, settings: RecaptionCommandSettings) -> CaptionStage:
    from recaption.captioning.stage import CaptionStage
    from recaption.fuse.stage import FuseStage

    if (settings.precision, settings.device) != ("auto", "auto"):
        precision_of(settings.precision, settings.device)
    if settings.selection:
        dataset.selection_keys(settings.selection)
    if settings.fuse:
        return FuseStage(settings.part(RecaptionSettings), dataset)
    return CaptionStage(settings.part(RecaptionSettings), dataset=dataset)


def _counts(dataset: Dataset, source: str, column: str) -> dict[str, int]:
    """ "KIND VALUE" of a column that is set -> captions of one source."""
    rows = (
        dataset.connect(["captions"])
        .execute(
            f"SELECT kind || ' ' || {column}, count(*) FROM {dataset.scan('captions', source)} "
            f"WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1"
        )
        .fetchall()
    )
    return {str(name): int(count) for name, count in rows}
