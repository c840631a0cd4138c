"""`caplab curate`: intake, download, scores, duplicates and a first selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import click
from pydantic import Field

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.download.settings import DownloadSettings
from curate.duplicates.settings import DuplicateSettings
from curate.intake.settings import IntakeSettings
from curate.scoring.settings import ScoreSettings
from curate.selection.settings import SelectSettings
from pipelines.commands.score import remember
from pipelines.runners.settings import RunnerSettings, WorkerSettings
from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say, show
from pipelines.world.by_name import DemoByName

if TYPE_CHECKING:
    from curate.intake.source import Source
    from curate.scoring.stage import ScoreStage
    from curate.selection.funnel import SelectionSummary
    from curate.store.dataset import Dataset
    from pipelines.runners.protocol import Runner

WRITES = ("samples", "scores", "duplicates")
"""The locks of this command; see curate.store.lock."""

Until = Literal["download", "score", "duplicates", "selection"]
"""The stages, in their order."""


class CurateSettings(
    IntakeSettings,
    DownloadSettings,
    ScoreSettings,
    DuplicateSettings,
    WorkerSettings,
    DemoByName,
):
    """Intake, download, scores, duplicates and the first selection."""

    GROUPS: ClassVar[dict[str, str]] = {"First selection": "name"}

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
@click.option(
    "--extend",
    is_flag=True,
    help="INPUT grew, or is a further one: take in its rows that are new to the dataset, with the "
    "dataset's own settings.",
)
@settings_options(CurateSettings)
def command(
    source: str,
    out: Path,
    dry_run: bool,
    until: Until,
    retry_failed: bool,
    extend: bool,
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
          --clip-pretrained openai --where "clip_similarity >= 0.25"
      caplab curate more-urls.parquet --out data/mine --extend
    """
    say(f"reading {source}")
    if dry_run:
        wanted = stored_settings(out, source, settings) if extend else settings
        show(plan(source, wanted))
        return
    show(curate(source, out, settings, until, retry_failed, extend))


@dataclass(frozen=True)
class CurateSummary(Summary):
    """The accounting of the input list and the funnel of the first selection.

    Attributes:
        rows, stored, failed: of all lists; rows = stored + failed.
        reasons: of failed rows, the most frequent first.
        joined, known: rows of this list that joined, now or when it came, and those that were in
            the dataset before.
        duplicates: what the search counted; empty where it has not come to that.
        selection: the first selection; None where it has not come to that.
        accounting: the same in words.
    """

    directory: Path
    rows: int
    stored: int
    failed: int
    reasons: Mapping[str, int]
    joined: int | None
    known: int | None
    duplicates: Mapping[str, int] = field(default_factory=dict)
    selection: SelectionSummary | None = None
    accounting: str = field(default="", repr=False)

    def text(self) -> str:
        """What the command prints."""
        lines = [self.accounting]
        if self.duplicates:
            found = (f"{name} {count:,}" for name, count in sorted(self.duplicates.items()))
            lines.append(f"duplicates: {', '.join(found)}")
        return "\n".join([*lines, *([self.selection.text()] if self.selection else [])])


def curate(
    source: str | Path,
    out: Path | str,
    settings: CurateSettings,
    until: Until = "selection",
    retry_failed: bool = False,
    extend: bool = False,
) -> CurateSummary:
    """Turn a URL list into a scored dataset, or continue one that was interrupted.

    Every setting, the input list and all weights are checked before anything is written or
    fetched. Each stage works shard by shard and skips what is finished. Cost is per sample for
    download and scores; see `find_duplicates` for duplicates.

    Args:
        until: the last stage to run; a later call goes on behind it.
        retry_failed: fetch once more what failed for a reason that can pass, in shards that were
            finished before.
        extend: `source` joins the dataset `out` with the rows whose keys are new to it; settings
            that are not given are the dataset's own (`stored_settings`).

    Raises:
        ConfigError: a setting, the input list or a weights file is wrong.
        DatasetError: `out` belongs to other settings or another list, or `extend` and it is none.
        StageError: some shards failed; what is done is kept and the same call continues.
    """
    from curate.intake.lists.own import identity_of
    from curate.scoring.stage import ScoreStage
    from curate.selection.first import refuse_other_rules
    from curate.store.dataset import Dataset
    from curate.store.lock import hold
    from pipelines.runners.choice import open_runner

    if extend:
        settings = stored_settings(out, source, settings)
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
    refuse_other_rules(Dataset(out), settings.selection())
    identity: Mapping[str, Any] = {
        "input": inputs.address,
        "format": inputs.format,
        "columns": [inputs.url_column, inputs.text_column],
        "rows_per_shard": settings.rows_per_shard,
        **settings.part(DownloadSettings).identity(),
    }
    if settings.encoding is not None:
        identity = {**identity, "encoding": settings.encoding}
    identity = identity_of(Dataset(out), identity, extend)
    with hold(out, WRITES), open_runner(settings.part(RunnerSettings)) as runner:
        return _curate(runner, inputs, out, settings, score, identity, until, retry_failed, extend)


def _curate(
    runner: Runner,
    inputs: Source,
    out: Path | str,
    settings: CurateSettings,
    score: ScoreStage | None,
    identity: Mapping[str, Any],
    until: Until,
    retry_failed: bool,
    extend: bool,
) -> CurateSummary:
    from curate.base.progress import tell
    from curate.base.provenance import provenance
    from curate.download.mend import clear_damaged, restore_lists
    from curate.download.retry import RetryStage, finish_retries
    from curate.duplicates.search import find_duplicates
    from curate.intake.imported_scores import ImportScoresStage
    from curate.intake.left_out import left_out_line
    from curate.intake.lists.join import finish_joining, join_list
    from curate.intake.lists.record import read_intakes
    from curate.intake.read import plan_shards
    from curate.selection.first import select_first
    from curate.store.accounting import accounting, accounting_line
    from curate.store.dataset import Dataset
    from curate.store.dataset_card import write_dataset_card
    from curate.store.holes import ALT, INPUT, SCORE_TABLES, TARS, find_holes, note_finished
    from pipelines.runners.once import run_once
    from pipelines.runners.shards import run_stage
    from recaption.captioning.alt_texts import AltCaptionStage

    record = provenance(settings, score.weights() if score else {})
    dataset = Dataset.create(out, identity, record)
    finish_joining(dataset)
    holes = find_holes(dataset)
    if lost := sum(not hole.unfinished for hole in holes):
        files = amount(lost, "file is", "files are")
        tell(f"{files} lost or damaged; what is gone is made again")
    if any(hole.table == INPUT for hole in holes):
        restore_lists(dataset, holes, settings.rows_per_shard, None if extend else inputs)
    clear_damaged(dataset, holes)
    finish_retries(dataset)
    before = [
        shard
        for intake in read_intakes(dataset)
        for shard in ([] if intake.local else intake.shard_names())
        if dataset.has_shard("samples", shard)
    ]
    take_in = join_list if extend else plan_shards
    intake = take_in(inputs, dataset, rows_per_shard=settings.rows_per_shard)
    store_pictures(runner, dataset, settings)
    if retry_failed:
        stage = RetryStage(settings.part(DownloadSettings))
        run_stage(runner, stage, dataset, settings.workers, shards=before)
    note_finished(dataset, "samples", TARS)
    write_dataset_card(dataset)
    counts = accounting(dataset)
    counted = accounting_line(counts)
    if extend:
        counted += f"; {amount(intake.rows, 'row')} joined with this list"
        counted += f", {intake.known:,} in the dataset before" if intake.known else ""
    if intake.without_text:
        counted += f"; {intake.without_text:,} came without a text"
    if left_out := left_out_line(intake.left_out, intake.left_out_names):
        counted += f"\n{left_out}"
    summary = CurateSummary(
        dataset.directory,
        **{name: counts[name] for name in ("rows", "stored", "failed", "reasons")},
        joined=intake.rows if extend else None,
        known=intake.known if extend else None,
        accounting=counted,
    )
    if score is None:  # until the download
        return summary
    run_stage(runner, AltCaptionStage(), dataset, here=True)
    note_finished(dataset, ALT)
    run_stage(runner, score, dataset, settings.workers, gpus=settings.gpus_per_worker)
    remember(dataset, score.settings, score.weights())
    if any(one.imported for one in read_intakes(dataset)):
        run_stage(runner, ImportScoresStage(), dataset, here=True)
    note_finished(dataset, *SCORE_TABLES)
    write_dataset_card(dataset)
    if until == "score":
        return summary
    found = run_once(runner, find_duplicates, dataset, settings.part(DuplicateSettings))
    summary = replace(summary, duplicates=found)
    if until == "duplicates":
        return summary
    return replace(summary, selection=select_first(dataset, settings.selection()))


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
        counted = f"{about}{amount(found.rows, 'row')} in {about}{amount(shards, 'shard')}"
    if found.captions is not None:
        texts = f"{amount(found.captions, 'caption')} of {amount(found.pictures or 0, 'picture')}"
        counted = f"{texts}; {counted}"
    work = "stored from here" if inputs.local else f"{settings.threads} downloads at a time in each"
    left_out = left_out_line(found.left_out.counts, found.left_out.names())
    return "\n".join(
        [
            inputs.describe(),
            *([left_out] if left_out else []),
            f"{counted} of {amount(settings.rows_per_shard, 'row')}, "
            f"{amount(settings.workers, 'worker')}, {work}",
            f"selection {settings.name!r}: {settings.where}",
        ]
    )


def store_pictures(runner: Runner, dataset: Dataset, settings: CurateSettings) -> None:
    """Download the pictures of lists, and read those that lie in inputs; what is stored stays."""
    from curate.download.shared_urls import sharing_urls
    from curate.download.stage import download_stage
    from curate.intake.lists.record import read_intakes
    from curate.intake.local_pictures import LocalPicturesStage
    from pipelines.runners.shards import run_stage

    download = settings.part(DownloadSettings)
    shards = dataset.shards()
    here = {name for one in read_intakes(dataset) if one.local for name in one.shard_names()}
    if local := [shard for shard in shards if shard in here]:
        run_stage(runner, LocalPicturesStage(download), dataset, settings.workers, shards=local)
    if listed := [shard for shard in shards if shard not in here]:
        with sharing_urls(dataset, listed):
            run_stage(runner, download_stage(download), dataset, settings.workers, shards=listed)


def stored_settings(
    out: Path | str, source: str | Path, settings: CurateSettings
) -> CurateSettings:
    """The settings that a dataset was made and last scored with, under those given now.

    Not among them: where workers run, and how a list is read, unless it is one of the dataset's.

    Raises:
        DatasetError: there is no dataset.
    """
    from curate.base.files import read_record
    from curate.intake.lists.own import stored_values
    from curate.store.dataset import Dataset
    from pipelines.commands.score import record_path

    dataset = Dataset(out)
    stored = stored_values(dataset, source)
    if record_path(dataset).exists():
        scored = read_record(record_path(dataset)).get("settings", {})
        stored |= {name: scored[name] for name in ScoreSettings.model_fields if name in scored}
    wanted = {*CurateSettings.model_fields} - {*RunnerSettings.model_fields}
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    kept = {name: value for name, value in stored.items() if name in wanted}
    return load_settings(CurateSettings, None, {**kept, **given})


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
