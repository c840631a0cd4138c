"""`caplab curate`: intake, download, scores, duplicates and a first selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from pydantic import Field

from curate.base.errors import ConfigError
from curate.download.settings import DownloadSettings
from curate.duplicates.settings import DuplicateSettings
from curate.intake.settings import IntakeSettings
from curate.scoring.settings import ScoreSettings
from curate.selection.settings import SelectSettings
from pipelines.commands.score import remember
from pipelines.runners.settings import RunnerSettings, WorkerSettings
from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say

if TYPE_CHECKING:
    from curate.intake.source import Source
    from curate.scoring.stage import ScoreStage
    from curate.store.dataset import Dataset
    from pipelines.runners.protocol import Runner

WRITES = ("samples", "scores", "duplicates")
"""The locks of this command; see curate.store.lock."""

Until = Literal["download", "score", "duplicates", "selection"]
"""The stages, in their order."""


class CurateSettings(
    DownloadSettings, ScoreSettings, DuplicateSettings, IntakeSettings, WorkerSettings
):
    """Intake, download, scores, duplicates and the first selection."""

    name: str = Field("default", description="Name of the first selection.")
    where: str = Field(
        "true", description="SQL condition of the first selection; duplicates are dropped as well."
    )

    def selection(self) -> SelectSettings:
        """Settings of the first selection."""
        return SelectSettings(name=self.name, where=self.where)


@click.command("curate")
@click.argument("source", metavar="INPUT")
@click.option("--out", required=True, type=PLACE, help="Dataset directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Read the list, print the plan, fetch nothing.")
@click.option(
    "--until",
    type=click.Choice(["download", "score", "duplicates", "selection"]),
    default="selection",
    show_default=True,
    help="The last stage to run; the same command without it goes on from there.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Fetch again what failed for reasons that can pass (timeouts, DNS, 429, 5xx, ...).",
)
@settings_options(CurateSettings)
def command(
    source: str,
    out: Path,
    dry_run: bool,
    until: Until,
    retry_failed: bool,
    settings: CurateSettings,
) -> None:
    """Take in URLs or pictures, score every pair, find duplicates, make a first selection.

    INPUT is a list of URLs and texts (Parquet, CSV, TSV, JSONL, JSON, or a URL a line; also .gz),
    WebDataset tars (img2dataset's output too), a folder of pictures with .txt or .json beside them,
    or Parquet with pictures inside; a file, a folder or a glob, local or s3://, gs://, https://.
    --dry-run prints what was recognised. Every row of it ends as one row of the samples table:
    stored, or failed with its reason. Scores are columns and never deletions: select as often as
    you like with `caplab select`.

    \b
    Examples:
      caplab curate urls.parquet --out data/mine --image-size 512
      caplab curate urls.csv --out data/mine --clip-model ViT-L-14-quickgelu \\
          --clip-pretrained openai --where "clip_similarity >= 0.25 and not duplicate"
    """
    say(f"reading {source}")
    if dry_run:
        click.echo(plan(source, settings))
        return
    click.echo(curate(source, out, settings, until, retry_failed).text())


@dataclass(frozen=True)
class CurateSummary:
    """The accounting of the input list and the funnel of the first selection."""

    directory: Path
    accounting: str
    duplicates: str = ""
    funnel: str = ""

    def text(self) -> str:
        """What the command prints."""
        return "\n".join(part for part in (self.accounting, self.duplicates, self.funnel) if part)


def curate(
    source: str | Path,
    out: Path | str,
    settings: CurateSettings,
    until: Until = "selection",
    retry_failed: bool = False,
) -> CurateSummary:
    """Turn a URL list into a scored dataset, or continue one that was interrupted.

    Every setting, the input list and all weights are checked before anything is written or
    fetched. Each stage works shard by shard and skips what is finished. Cost is per sample for
    download and scores; see `find_duplicates` for duplicates.

    Args:
        until: the last stage to run; a later call goes on behind it.
        retry_failed: fetch once more what failed for a reason that can pass, in shards that were
            finished before.

    Raises:
        ConfigError: a setting, the input list or a weights file is wrong.
        DatasetError: `out` belongs to other settings.
        StageError: some shards failed; what is done is kept and the same call continues.
    """
    from curate.scoring.stage import ScoreStage
    from curate.store.dataset import Dataset
    from curate.store.lock import hold
    from pipelines.runners.choice import open_runner

    inputs = look_at(source, settings)
    if retry_failed and inputs.local:
        raise ConfigError("--retry-failed fetches URLs again, but this input holds the pictures.")
    if inputs.local and settings.engine != "caplab":
        raise ConfigError(
            f"--engine {settings.engine} downloads, but this input holds the pictures."
        )
    if retry_failed and settings.engine == "img2dataset":
        raise ConfigError(
            "--retry-failed is not for the engine img2dataset, which tries no row anew."
        )
    # Without scores no weights are loaded, and the workers of a download stay small.
    score = None if until == "download" else ScoreStage(settings.part(ScoreSettings))
    _refuse_other_selection(Dataset(out), settings.selection())
    identity = {
        "input": inputs.address,
        "format": inputs.format,
        "columns": [inputs.url_column, inputs.text_column],
        "rows_per_shard": settings.rows_per_shard,
        **settings.part(DownloadSettings).identity(),
    }
    if settings.encoding is not None:
        identity["encoding"] = settings.encoding
    with hold(out, WRITES), open_runner(settings.part(RunnerSettings)) as runner:
        return _curate(runner, inputs, out, settings, score, identity, until, retry_failed)


def _curate(
    runner: Runner,
    inputs: Source,
    out: Path | str,
    settings: CurateSettings,
    score: ScoreStage | None,
    identity: Mapping[str, Any],
    until: Until,
    retry_failed: bool,
) -> CurateSummary:
    from curate.base.provenance import provenance
    from curate.download.mend import clear_damaged, restore_input
    from curate.download.retry import RetryStage, finish_retries
    from curate.download.stage import download_stage
    from curate.duplicates.search import find_duplicates
    from curate.intake.imported_scores import ImportScoresStage
    from curate.intake.left_out import left_out_line
    from curate.intake.local_pictures import LocalPicturesStage
    from curate.intake.read import plan_shards
    from curate.selection.select import select
    from curate.store.accounting import accounting, accounting_line
    from curate.store.dataset import Dataset
    from curate.store.dataset_card import write_dataset_card
    from curate.store.holes import ALT, INPUT, SCORE_TABLES, TARS, find_holes, note_finished
    from pipelines.runners.once import run_once
    from pipelines.runners.shards import run_stage
    from recaption.captioning.alt_texts import AltCaptionStage

    record = provenance(settings, score.weights() if score else {})
    dataset = Dataset.create(out, identity, record)
    holes = find_holes(dataset)
    if lost := sum(not hole.unfinished for hole in holes):
        click.echo(f"{lost:,} files are lost or damaged; what is gone is made again", err=True)
    if any(hole.table == INPUT for hole in holes):
        restore_input(inputs, dataset, settings.rows_per_shard)
    clear_damaged(dataset, holes)
    finish_retries(dataset)
    intake = plan_shards(inputs, dataset, rows_per_shard=settings.rows_per_shard)
    download = settings.part(DownloadSettings)
    store = LocalPicturesStage(download) if inputs.local else download_stage(download)
    before = [shard for shard in dataset.shards() if dataset.has_shard("samples", shard)]
    run_stage(runner, store, dataset, settings.workers)
    if retry_failed:
        run_stage(runner, RetryStage(download), dataset, settings.workers, shards=before)
    note_finished(dataset, "samples", TARS)
    write_dataset_card(dataset)
    counted = accounting_line(accounting(dataset))
    if intake.without_text:
        counted += f"; {intake.without_text:,} came without a text"
    if left_out := left_out_line(intake.left_out, intake.left_out_names):
        counted += f"\n{left_out}"
    if score is None:  # until the download
        return CurateSummary(dataset.directory, counted)
    run_stage(runner, AltCaptionStage(), dataset, here=True)
    note_finished(dataset, ALT)
    run_stage(runner, score, dataset, settings.workers, gpus=settings.gpus_per_worker)
    remember(dataset, score.settings, score.weights())
    if intake.imported:
        run_stage(runner, ImportScoresStage(), dataset, here=True)
    note_finished(dataset, *SCORE_TABLES)
    write_dataset_card(dataset)
    if until == "score":
        return CurateSummary(dataset.directory, counted)
    counts = run_once(runner, find_duplicates, dataset, settings.part(DuplicateSettings))
    found = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    duplicates = f"duplicates: {found}"
    if until == "duplicates":
        return CurateSummary(dataset.directory, counted, duplicates)
    # Scores may have been added since; the rules were checked to be the same.
    kept = {"overwrite": True, **_balance_of(dataset, settings.name)}
    selection = settings.selection().model_copy(update=kept)
    selected = select(dataset, selection)
    return CurateSummary(dataset.directory, counted, duplicates, selected.text())


def plan(source: str | Path, settings: CurateSettings) -> str:
    """What `curate` would do, without fetching or writing anything."""
    from curate.intake.left_out import left_out_line
    from curate.scoring.stage import ScoreStage

    inputs = look_at(source, settings)
    found = inputs.survey()
    ScoreStage(settings.part(ScoreSettings))  # names and files of all models are checked
    counted = "rows: not counted (packed or very large)"
    if found.rows is not None:
        shards = -(-found.rows // settings.rows_per_shard)
        about = "" if found.exact else "about "
        counted = f"{about}{found.rows:,} rows in {about}{shards:,} shards"
    if found.captions is not None:
        counted = f"{found.captions:,} captions of {found.pictures:,} pictures; {counted}"
    work = "stored from here" if inputs.local else f"{settings.threads} downloads at a time in each"
    left_out = left_out_line(found.left_out.counts, found.left_out.names())
    return "\n".join(
        [
            inputs.describe(),
            *([left_out] if left_out else []),
            f"{counted} of {settings.rows_per_shard:,} rows, {settings.workers} workers, {work}",
            f"selection {settings.name!r}: {settings.where}",
        ]
    )


def look_at(source: str | Path, settings: CurateSettings) -> Source:
    """What the input is, as the settings want it read."""
    from curate.intake.inspection import inspect_input

    return inspect_input(
        source,
        settings.url_column,
        settings.text_column,
        settings.input_format,
        settings.import_columns,
        settings.without_texts,
        settings.encoding,
    )


def _balance_of(dataset: Dataset, name: str) -> dict[str, Any]:
    """How the stored selection was balanced since, if it was."""
    from curate.store.holes import json_damage

    if json_damage(dataset.selection_path(name).with_suffix(".json")):
        return {}
    stored = dataset.selection_record(name).get("settings", {})
    return {part: stored[part] for part in ("balance", "cap") if stored.get(part) is not None}


def _refuse_other_selection(dataset: Dataset, settings: SelectSettings) -> None:
    """Before hours of work: the first selection's name must not stand for other rules."""
    from curate.selection.select import check_name
    from curate.store.holes import json_damage

    check_name(settings.name)
    record = dataset.selection_path(settings.name).with_suffix(".json")
    if dataset.selection_path(settings.name).exists() and json_damage(record) is None:
        where = dataset.selection_record(settings.name)["where"]
        if where != settings.where:
            raise ConfigError(
                f"The selection {settings.name!r} exists and stands for {where!r}; "
                f"choose another --name."
            )
