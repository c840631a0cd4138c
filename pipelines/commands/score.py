"""`caplab score`: bring the scores of an existing dataset up to date, or add scorers to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from pydantic import Field

from curate.base.files import read_record, write_json
from curate.base.settings import load_settings
from curate.base.telling.summaries import Summary
from curate.scoring.settings import ScoreSettings
from curate.scoring.whole.settings import WholeSettings
from pipelines.runners.settings import RunnerSettings, WorkerSettings
from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import say, show
from pipelines.world.by_name import DemoByName

if TYPE_CHECKING:
    from curate.store.dataset import Dataset
    from curate.store.stage import Stage
    from pipelines.runners.shards import StageSummary


class ScoreCommandSettings(ScoreSettings, WholeSettings, WorkerSettings, DemoByName):
    """Scores of an existing dataset; what is not given stays as it was scored before."""

    GROUPS: ClassVar[dict[str, str]] = {"Captions": "captions"}

    captions: tuple[str, ...] = Field(
        (), description="Caption kinds to score as well, sentence by sentence; all for every kind."
    )


@click.command("score")
@dataset_argument
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Compute again the scores that are missing and say why in NAME_error.",
)
@settings_options(ScoreCommandSettings, as_given=True)
def command(
    directory: Path, retry_failed: bool, config: Path | None, given: dict[str, Any]
) -> None:
    """Score an existing dataset: add scorers, score captions, score what came later.

    Settings that are not given stay as they were when DIR was scored last, and only columns and
    samples that lack a score are computed.

    \b
    Examples:
      caplab score data/mine                              # what was stored since
      caplab score data/mine --nsfw-head laion-nsfw-l14   # opens no picture
      caplab score data/mine --captions descriptive       # captions, by sentence
      caplab score data/mine --more-clips b32=ViT-B-32-quickgelu@openai
      caplab score data/mine --neg-clip-loss model        # of stored embeddings
    """
    say(f"reading the scores of {directory}")
    settings = on_top_of_stored(directory, config, given)
    show(score(directory, settings, retry_failed))


@dataclass(frozen=True)
class ScoreSummary(Summary):
    """What was scored now, and the columns that the tables hold afterwards."""

    stages: tuple[StageSummary, ...]
    columns: tuple[str, ...]

    def text(self) -> str:
        """What the command prints."""
        lines = []
        for stage in self.stages:
            counts = ", ".join(f"{name} {count:,}" for name, count in sorted(stage.counts.items()))
            lines.append(f"{stage.text()}{': ' + counts if counts else ''}")
        return "\n".join([*lines, f"columns: {', '.join(self.columns)}"])


def score(
    directory: Path | str, settings: ScoreCommandSettings, retry_failed: bool = False
) -> ScoreSummary:
    """Compute every score that the settings ask for and the tables lack.

    Args:
        retry_failed: also those that are null and say why in `NAME_error`.

    Raises:
        ConfigError: a model, a head or a caption kind that is not there; before any work.
        StageError: some shards failed; the others are kept and the same call continues.
    """
    from curate.store.dataset import Dataset
    from curate.store.lock import writing

    dataset = Dataset.open(directory)
    with writing(dataset.directory, "scores"):
        return _score(dataset, settings, retry_failed)


def _score(dataset: Dataset, settings: ScoreCommandSettings, retry_failed: bool) -> ScoreSummary:
    from curate.base.provenance import provenance
    from curate.download.mend import clear_damaged
    from curate.intake.imported_scores import ImportScoresStage
    from curate.intake.lists.record import read_intakes
    from curate.scoring.captions import CaptionScoreStage
    from curate.scoring.stage import ScoreStage
    from curate.scoring.whole.stage import WholeScoreStage
    from curate.store.dataset_card import write_dataset_card
    from curate.store.holes import (
        DUPLICATE_TABLES,
        SCORE_TABLES,
        find_holes,
        note_finished,
        refuse_holes,
    )
    from pipelines.runners.choice import open_runner
    from pipelines.runners.shards import run_stage

    part = settings.part(ScoreSettings)
    stage = ScoreStage(part, retry_failed=retry_failed)
    among = WholeScoreStage(settings.part(WholeSettings), part)
    resolved = ("precision", "ask_precision", "ask_served_model")
    settings = settings.model_copy(update={n: getattr(stage.settings, n) for n in resolved})
    captions = CaptionScoreStage(part, settings.captions) if settings.captions else None
    if captions is not None:
        captions.check(dataset)
    stages: list[tuple[Stage, int]] = [(stage, settings.workers)]
    if captions is not None:
        stages.append((captions, settings.workers))
    if any(intake.imported for intake in read_intakes(dataset)):  # for samples that came later
        stages.append((ImportScoresStage(), 1))
    clear_damaged(dataset, [h for h in find_holes(dataset, ()) if h.table in SCORE_TABLES])
    refuse_holes(dataset, but=(*SCORE_TABLES, *DUPLICATE_TABLES, "caption_scores"), unfinished=True)
    with open_runner(settings.part(RunnerSettings)) as runner:
        done = [
            run_stage(runner, each, dataset, workers, gpus=settings.gpus_per_worker)
            for each, workers in stages
        ]
        if among.columns:  # they rest on the embeddings of all shards
            among.prepare(dataset)
            workers = settings.workers
            done.append(run_stage(runner, among, dataset, workers, gpus=settings.gpus_per_worker))
    write_json(record_path(dataset), provenance(settings, stage.weights()))
    note_finished(dataset, *SCORE_TABLES)
    if settings.captions:
        names = [f"caption_scores/{source}" for source in dataset.caption_sources()]
        note_finished(dataset, *names)
    write_dataset_card(dataset)
    connection = dataset.connect()
    columns = [row[0] for row in connection.execute("DESCRIBE scores").fetchall()]
    return ScoreSummary(tuple(done), tuple(columns))


def record_path(dataset: Dataset) -> Path:
    """scores.json: the settings of the last scoring, its weights and versions."""
    return dataset.directory / "scores.json"


def remember(dataset: Dataset, settings: ScoreSettings, weights: Mapping[str, str]) -> None:
    """Note what `caplab curate` scored, over what `caplab score` added before."""
    from curate.base.provenance import provenance

    path = record_path(dataset)
    before = read_record(path).get("settings", {}) if path.exists() else {}
    ours = settings.resolved()
    defaults = {name: info.default for name, info in ScoreSettings.model_fields.items()}
    # What curate leaves at its default, a scorer that was added later may have set.
    changed = {
        name: value for name, value in ours.items() if getattr(settings, name) != defaults[name]
    }
    wanted = {**ours, **before, **changed}
    if wanted != before:
        write_json(path, provenance(wanted, weights))


def on_top_of_stored(
    directory: Path | str, config: Path | None, given: Mapping[str, Any]
) -> ScoreCommandSettings:
    """The dataset's own settings, then the YAML file, then the options that were given.

    So `caplab score DIR --nsfw-head HEAD` adds one column and leaves all others as they are, and
    `caplab score DIR` alone scores what a retry stored since.
    """
    from curate.store.dataset import Dataset

    dataset = Dataset.open(directory)
    path = record_path(dataset)
    record = read_record(path) if path.exists() else dataset.record()
    fields = ScoreCommandSettings.model_fields
    stored = {n: v for n, v in record.get("settings", {}).items() if n in fields}
    asked = load_settings(ScoreCommandSettings, config, given)
    explicit = asked.model_dump(include=asked.model_fields_set)
    return load_settings(ScoreCommandSettings, None, {**stored, **explicit})
