"""What `caplab check --repair` does.

A repair fetches and computes what is gone with the settings that made it: those of dataset.json for
the download and the duplicates, those of scores.json for the scores. It needs no input list but for
lost rows of the list itself. Killed, it continues with the same command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from curate.base.errors import CaplabError, DatasetError
from curate.base.files import read_record, write_json
from curate.base.progress import tell
from curate.base.settings import Settings
from curate.download.mend import clear_damaged, restore_lists
from curate.download.retry import finish_retries
from curate.duplicates.search import find_duplicates
from curate.duplicates.settings import DuplicateSettings
from curate.intake.imported_scores import ImportScoresStage
from curate.intake.lists.join import finish_joining
from curate.intake.lists.record import read_intakes
from curate.scoring.captions import CaptionScoreStage
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from curate.store.holes import (
    ALT,
    DUPLICATE_TABLES,
    INPUT,
    RECORD,
    SCORE_TABLES,
    SELECTIONS,
    TARS,
    Hole,
    finished_path,
    finished_tables,
    note_finished,
)
from curate.store.stage import Stage
from pipelines.commands.curate import CurateSettings, look_at, store_pictures
from pipelines.commands.score import ScoreCommandSettings
from pipelines.commands.score import record_path as scores_record
from pipelines.runners.protocol import Runner
from pipelines.runners.shards import run_stage
from recaption.captioning.alt_texts import AltCaptionStage

S = TypeVar("S", bound=Settings)


class Repair:
    """Mends a dataset, stage by stage, in the order of the road."""

    def __init__(self, dataset: Dataset, runner: Runner) -> None:
        self._dataset, self._runner = dataset, runner

    def mend(self, holes: Sequence[Hole], source: str | None) -> None:
        """Clear away what is damaged and make again what is gone."""
        dataset = self._dataset
        _restore_records(dataset, holes)
        finish_joining(dataset)
        self._settings = _settings(CurateSettings, dataset.record().get("settings", {}))
        had = {hole.table for hole in holes} | set(finished_tables(dataset))
        had |= {table for table in (*SCORE_TABLES, *DUPLICATE_TABLES) if dataset.has_table(table)}
        if any(hole.table == INPUT for hole in holes):
            moved = look_at(source, self._settings) if source else None
            rows_per_shard = int(dataset.record()["identity"]["rows_per_shard"])
            restore_lists(dataset, holes, rows_per_shard, moved)
        left = clear_damaged(dataset, holes)
        finish_retries(dataset)
        store_pictures(self._runner, dataset, self._settings)
        note_finished(dataset, "samples", TARS)
        if had & {ALT, *SCORE_TABLES}:
            self._run(AltCaptionStage(), here=True)
            note_finished(dataset, ALT)
            self._score({table for table in had if table.startswith("caption_scores/")})
        if had & {*DUPLICATE_TABLES}:
            find_duplicates(dataset, self._settings.part(DuplicateSettings))
        _select_again(dataset, [hole.name for hole in left if hole.table == SELECTIONS])

    def _score(self, scored_captions: set[str]) -> None:
        """All scores with the settings of the last scoring, and what came with the input."""
        dataset = self._dataset
        record = scores_record(dataset)
        stored = (
            read_record(record).get("settings", {})
            if record.exists()
            else self._settings.resolved()
        )
        wanted = _settings(ScoreCommandSettings, stored)
        part = wanted.part(ScoreSettings)
        self._run(ScoreStage(part))
        if any(intake.imported for intake in read_intakes(dataset)):
            self._run(ImportScoresStage(), here=True)
        note_finished(dataset, *SCORE_TABLES)
        if wanted.captions and scored_captions:
            self._run(CaptionScoreStage(part, wanted.captions))
            note_finished(dataset, *scored_captions)

    def _run(self, stage: Stage, here: bool = False) -> None:
        run_stage(self._runner, stage, self._dataset, self._settings.workers, here=here)


def _restore_records(dataset: Dataset, holes: Sequence[Hole]) -> None:
    for hole in holes:
        if hole.table == RECORD:
            if not dataset.record_copy.exists() or "version" in hole.problem:
                raise DatasetError(f"{hole.path} {hole.problem}; put it back from a backup.")
            write_json(hole.path, read_record(dataset.record_copy))
        elif hole.table == "scores.json":
            hole.path.unlink()  # scores are looked after with the settings of dataset.json then
        elif hole.table == "finished":
            finished_path(dataset, hole.name).unlink()


def _select_again(dataset: Dataset, names: Sequence[str]) -> None:
    """Make selections again by their records; one may rest on another that comes later."""
    waiting = {}
    for name in names:
        record = dataset.selection_path(name).with_suffix(".json")
        try:
            waiting[name] = _settings(SelectSettings, dataset.selection_record(name)["settings"])
        except (DatasetError, KeyError, TypeError):
            first = _settings(CurateSettings, dataset.record().get("settings", {})).selection()
            if name != first.name:
                tell(f"{record}: the rules are lost; its keys stay as they are")
                continue
            waiting[name] = first
            record.unlink(missing_ok=True)
        # Without its keys a selection is made again, and by its record a killed repair knows of it.
        dataset.selection_path(name).unlink(missing_ok=True)
    while waiting:
        done = []
        failed: CaplabError | None = None
        for name, settings in waiting.items():
            try:
                select(dataset, settings.model_copy(update={"overwrite": True}))
                done.append(name)
            except CaplabError as error:
                failed = error
        if not done and failed is not None:
            raise failed
        for name in done:
            del waiting[name]


def _settings(cls: type[S], stored: dict[str, Any]) -> S:
    """Settings as they were recorded, as far as this version knows them."""
    return cls(**{name: value for name, value in stored.items() if name in cls.model_fields})
