"""Export a selection: plan, shards, card. A killed export continues where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import CaplabError, ConfigError, DatasetError, StageError
from curate.base.files import (
    atomic_path,
    fingerprint,
    read_json,
    sha256_file,
    write_json,
    write_text,
)
from curate.base.progress import progress
from curate.base.provenance import provenance
from curate.base.registry import said, tried
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.export.card import dataset_card
from curate.export.layouts import Layout, find_layout
from curate.export.pictures import PictureReader
from curate.export.plan import make_plan
from curate.export.settings import ExportSettings, check
from curate.store.captions import caption_writers, sources_read
from curate.store.claims import claim_directory
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes
from curate.store.lock import hold
from curate.store.sample_view import file_mark
from curate.store.scans import parquet_rows


@dataclass(frozen=True)
class ExportSummary(Summary):
    """What was exported. selected = samples + everything left out."""

    directory: str
    selected: int
    samples: int
    shards: int
    kinds: dict[str, int]
    left_out: dict[str, int]

    def text(self) -> str:
        """What the command prints."""
        line = f"{self.selected:,} selected = {self.samples:,} exported"
        if self.left_out:
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.left_out.items())
            line += f" + {sum(self.left_out.values()):,} left out ({reasons})"
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.kinds.items())
        return f"{line}\ncaptions: {kinds}\n{amount(self.shards, 'shard')} in {self.directory}"


def export(dataset: Dataset, out: Path | str, settings: ExportSettings) -> ExportSummary:
    """Write a selection to `out`, or continue an export that was interrupted.

    OUT/export/ holds the record, the summary (written last: it says that all is there) and the
    samples that were left out with their reasons; OUT/README.md is the dataset card. The same
    dataset and settings give the same bytes, however often the export was killed. One process; cost
    is one read and write of each picture, in random order over the dataset's tars.

    Raises:
        ConfigError: settings that do not fit, or captions that nobody wrote; nothing is written.
        DatasetError: no such selection, or `out` belongs to other settings or an older dataset.
    """
    check(settings)
    kind = find_layout(settings)
    out = Path(out).absolute()
    if out == dataset.directory or dataset.directory in out.parents:
        raise DatasetError(f"{out} lies inside the dataset; choose an --out of its own.")
    refuse_holes(dataset, [settings.selection])
    if not kind.holds_weights:
        _refuse_weights(dataset, settings)
    identity = _identity(dataset, settings)
    with hold(out):
        return _export(dataset, out, settings, identity, kind)


def _export(
    dataset: Dataset,
    out: Path,
    settings: ExportSettings,
    identity: Mapping[str, Any],
    kind: type[Layout],
) -> ExportSummary:
    record = out / "export"
    new = claim_directory(out, record / "export.json", "export", identity, provenance(settings))
    finished = record / "summary.json"
    if finished.exists():
        return ExportSummary(**{**read_json(finished), "directory": str(out)})
    work = record / "work"
    try:
        plan = make_plan(dataset, settings, work)
    except DatasetError:
        if new:  # nothing was exported; leave no claim on the directory
            shutil.rmtree(record, ignore_errors=True)
        raise
    layout = kind(out, settings, plan)
    with progress(plan.samples, "exporting") as bar, PictureReader(dataset) as reader:
        for number in range(plan.shards):
            rows = plan.shard_rows(number)
            if not layout.shard_path(number).exists():
                _write(layout, number, rows, reader)
                if not layout.shard_path(number).exists():
                    raise ConfigError(
                        f"The layout {settings.layout!r} did not write {layout.shard_path(number)}."
                    )
            bar.update(rows.num_rows)
    layout.finish()
    write_text(out / "README.md", dataset_card(dataset, settings, plan, layout))
    with atomic_path(record / "left_out.parquet") as temporary:
        shutil.copyfile(plan.left_out_path, temporary)
    summary = ExportSummary(
        directory=str(out),
        selected=plan.samples + sum(plan.left_out.values()),
        samples=plan.samples,
        shards=plan.shards,
        kinds=plan.kinds,
        left_out=plan.left_out,
    )
    # Where the export lies is no part of what it holds.
    write_json(finished, {**asdict(summary), "directory": ""})
    shutil.rmtree(work, ignore_errors=True)
    return summary


def _write(layout: Layout, number: int, rows: pa.Table, reader: PictureReader) -> None:
    """Write a shard; what a layout of the user's own raises is one sentence that names it."""
    failed = tried(lambda: layout.write(number, rows, reader))
    if not isinstance(failed, Exception):
        return
    ours = type(layout).__module__.startswith("curate.")
    if ours or isinstance(failed, (CaplabError, OSError)):
        raise failed
    raise StageError(
        f"The layout {type(layout).__name__} failed on shard {number}: {said(failed)}."
    ) from failed


def _refuse_weights(dataset: Dataset, settings: ExportSettings) -> None:
    """For trainers that know no weight of a picture; weights that are all 1 say nothing."""
    path = dataset.selection_path(settings.selection)
    if path.exists() and dataset.is_weighted(settings.selection):
        weights = parquet_rows(path, ["weight"]).column("weight")
        if pc.any(pc.not_equal(weights, 1.0)).as_py():
            raise ConfigError(
                f"The selection {settings.selection!r} has weights, and {settings.layout} takes "
                f"none for a single picture (its repeats are whole numbers of a folder); use "
                f"another layout, or a selection whose --cap is the size of its smallest group, "
                f"which makes all weights 1."
            )


def _identity(dataset: Dataset, settings: ExportSettings) -> dict[str, Any]:
    """The settings and what they were applied to."""
    path = dataset.selection_path(settings.selection)
    if not path.exists():
        dataset.selection_keys(settings.selection)  # says what selections there are
    writers = caption_writers(dataset, list(settings.captions), settings.caption_sources)
    tables: dict[str, tuple[str, str | None]] = {
        "samples": ("samples", None),
        "scores": ("scores", None),
    }
    whose = sources_read(dataset, writers)
    tables |= {f"captions by {name}": ("captions", name) for name in whose}
    marks = {
        what: fingerprint(
            [
                [file.name, file.stat().st_size, file_mark(file)]
                for file in dataset.table_files(table, source)
            ]
        )
        for what, (table, source) in tables.items()
    }
    return {
        **settings.identity(),
        "caption_writers": writers,
        "dataset": str(dataset.directory),
        "selection_sha256": sha256_file(path),
        **marks,
    }
