"""`caplab recaption`: a captioner writes captions for a selection, shard by shard on Ray."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curate.dataset import Dataset
from curate.errors import ConfigError
from curate.files import write_json
from curate.provenance import provenance
from curate.shards import iter_shard
from pipelines.ray_stages import run_stage
from pipelines.settings import RecaptionCommandSettings
from recaption.caption import CaptionStage
from recaption.caption_rows import Pending, caption_kind
from recaption.gates import NEAR_DUPLICATE
from recaption.near_duplicates import mark_near_duplicates
from recaption.settings import RecaptionSettings


@dataclass(frozen=True)
class RecaptionSummary:
    """Who wrote, and how many captions were accepted, rejected and failed (all shards).

    Attributes:
        repeats: what `mark_near_duplicates` counted.
    """

    source: str
    counts: dict[str, int]
    repeats: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """What the command prints."""
        total = sum(self.counts.values())
        parts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        lines = [f"{total:,} captions by {self.source}: {parts or 'none'}"]
        if repeats := self.repeats.get(NEAR_DUPLICATE):
            lines.append(f"{repeats:,} nearly repeat the caption of another picture")
        if lost := self.repeats.get("lost"):
            lines.append(
                f"{lost:,} repeat nobody any more, but this version would not give their text "
                f"again; they stay rejected"
            )
        return "\n".join(lines)


def recaption(directory: Path | str, settings: RecaptionCommandSettings) -> RecaptionSummary:
    """Write every caption that is asked for and not there yet.

    Raises:
        ConfigError: the captioner, a prompt file or the selection is not there.
        StageError: some shards failed; the others are kept and the same call continues.
    """
    dataset = Dataset.open(directory)
    stage = _stage(dataset, settings)
    write_json(
        dataset.directory / "captioners" / f"{stage.source}.json",
        provenance(settings, {stage.captioner.model: stage.captioner.digest}),
    )
    run_stage(stage, dataset, settings.workers, gpus_per_worker=settings.gpus_per_worker)
    repeats = mark_near_duplicates(dataset, stage.source, settings)
    return RecaptionSummary(stage.source, _counts(dataset, stage.source), repeats)


def dry_run(directory: Path | str, settings: RecaptionCommandSettings, pictures: int) -> str:
    """Caption `pictures` pictures of the selection, store nothing, and estimate the rest.

    Raises:
        ConfigError: as `recaption`, or the selection has no stored pictures.
    """
    dataset = Dataset.open(directory)
    stage = _stage(dataset, settings)
    pending = {kind: Pending() for kind in stage.plans}
    left, selected = pictures, 0
    for shard in dataset.shards():
        alt_texts = stage.selected(dataset, shard)
        selected += len(alt_texts)
        if left <= 0:
            continue
        values = stage.inputs(dataset, shard, list(alt_texts))
        for key, picture, _ in iter_shard(dataset, shard):
            if key in alt_texts and left > 0:
                left -= 1
                for columns in pending.values():
                    columns.add(key, 0, picture, alt_texts[key], *values[key])
    if left == pictures:
        raise ConfigError(f"Selection {settings.selection!r} has no stored pictures.")
    engine = stage.opened()
    started = time.perf_counter()
    tables = [
        caption_kind(engine, stage.captioner, stage.plans[kind], columns, stage.measures)
        for kind, columns in pending.items()
    ]
    seconds = time.perf_counter() - started
    captions = sum(table.num_rows for table in tables)
    statuses = Counter(status for t in tables for status in t.column("status").to_pylist())
    tokens = [n for t in tables for n in t.column("output_tokens").to_pylist() if n is not None]
    total = selected * len(stage.plans) * settings.samples_per_image
    hours = total * seconds / captions / settings.workers / 3600
    lines = [
        f"{captions} captions of {pictures - left} pictures in {seconds:.1f} s: "
        f"{captions / seconds:.2f} a second and worker, "
        f"{np.mean(tokens) if tokens else 0:.0f} output tokens each, "
        f"{statuses['ok'] / captions:.0%} accepted",
        f"all {total:,} captions of {selected:,} pictures: about {hours:.2f} hours with "
        f"{settings.workers} workers",
    ]
    if settings.price_per_hour:
        cost = hours * settings.workers * settings.price_per_hour
        lines.append(f"at {settings.price_per_hour:g} an hour and worker: about {cost:.2f}")
    examples = [text for t in tables for text in t.column("raw_text").to_pylist()[:2] if text]
    return "\n".join([*lines, "", *(f"  {text}" for text in examples)])


def _stage(dataset: Dataset, settings: RecaptionCommandSettings) -> CaptionStage:
    if settings.selection:
        dataset.selection_keys(settings.selection)
    return CaptionStage(settings.part(RecaptionSettings), dataset=dataset)


def _counts(dataset: Dataset, source: str) -> dict[str, int]:
    files = str(dataset.table_directory("captions", source) / "*.parquet")
    rows = (
        dataset.connect()
        .execute(
            "SELECT kind || ' ' || status, count(*) FROM read_parquet($files) "
            "GROUP BY 1 ORDER BY 1",
            {"files": files},
        )
        .fetchall()
    )
    return {str(name): int(count) for name, count in rows}
