"""Settings of the commands: a component's settings plus what the hall adds (selection, workers)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from curate.download.settings import DownloadSettings
from curate.duplicates.settings import DuplicateSettings
from curate.intake.formats import InputFormat
from curate.scoring.settings import ScoreSettings
from curate.selection.settings import SelectSettings
from pipelines.runners.settings import RunnerSettings
from recaption.captioning.settings import RecaptionSettings
from train.settings import TrainSettings

OPERATIONAL: dict[str, Any] = {"identity": False}

Until = Literal["download", "score", "duplicates", "selection"]
"""The stages of `caplab curate`, in their order."""


class CurateSettings(DownloadSettings, ScoreSettings, DuplicateSettings, RunnerSettings):
    """Intake, download, scores, duplicates and the first selection."""

    url_column: str | None = Field(
        None, description="Column with the URLs; by default url, URL, image_url and the like."
    )
    text_column: str | None = Field(
        None,
        description="Column with the texts; by default text, TEXT, caption, alt and the like. "
        "A key inside an object is named as in caption.en.",
    )
    without_texts: bool = Field(
        False, description="The list has no texts; otherwise one without a text column is refused."
    )
    input_format: InputFormat | None = Field(
        None,
        description="parquet, csv, tsv, jsonl, json, text (a URL a line), webdataset or folder; by "
        "default by the input's name and contents.",
    )
    encoding: str | None = Field(
        None,
        description="Encoding of a list in text, such as cp1252 or utf-16; by default UTF-8, or "
        "what a byte order mark says.",
    )
    import_columns: list[str] = Field(
        [],
        description="Further columns to import as scores, beside those of LAION, COYO and DataComp "
        "that are known: column X becomes imported_x.",
        json_schema_extra=OPERATIONAL,
    )
    rows_per_shard: int = Field(10_000, gt=0, description="Rows of the input list a shard.")
    name: str = Field("default", description="Name of the first selection.")
    where: str = Field(
        "true", description="SQL condition of the first selection; duplicates are dropped as well."
    )
    workers: int = Field(
        2, gt=0, description="Workers side by side.", json_schema_extra=OPERATIONAL
    )
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs a scoring worker.", json_schema_extra=OPERATIONAL
    )

    def selection(self) -> SelectSettings:
        """Settings of the first selection."""
        return SelectSettings(name=self.name, where=self.where)


class ScoreCommandSettings(ScoreSettings, RunnerSettings):
    """Scores of an existing dataset; what is not given stays as it was scored before."""

    captions: tuple[str, ...] = Field(
        (), description="Caption kinds to score as well, sentence by sentence; all for every kind."
    )
    workers: int = Field(
        2, gt=0, description="Workers side by side.", json_schema_extra=OPERATIONAL
    )
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs a worker.", json_schema_extra=OPERATIONAL
    )


class RecaptionCommandSettings(RecaptionSettings, RunnerSettings):
    """Recaptioning, and how many workers do it."""

    workers: int = Field(
        1, gt=0, description="Workers side by side.", json_schema_extra=OPERATIONAL
    )
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs a worker.", json_schema_extra=OPERATIONAL
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


class TrainCommandSettings(TrainSettings, RunnerSettings):
    """One training run on a selection."""

    selection: str = Field("default", description="Selection of the dataset to train on.")
    caption_sources: dict[str, str] = Field(
        {}, description="Kind -> who wrote it, where several captioners wrote that kind."
    )
    cpus: int = Field(2, gt=0, description="CPU threads of the run.", json_schema_extra=OPERATIONAL)
    gpus: float = Field(0.0, ge=0, description="GPUs of the run.", json_schema_extra=OPERATIONAL)
