"""A dry run: caption a few pictures, write nothing, and say what the rest would take."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.errors import DatasetError
from curate.shards import iter_shard
from recaption.caption import CaptionStage
from recaption.caption_rows import OK, Pending, caption_kind

_EXAMPLES = 3


@dataclass(frozen=True)
class Rehearsal:
    """What a dry run measured.

    Attributes:
        source: name under which the captions would be stored.
        pictures: pictures captioned.
        captions: captions asked for.
        accepted: of them.
        output_tokens: in all captions; 0 where the engine does not tell.
        seconds: of wall time, without loading the captioner.
        selected: pictures of the whole selection.
        reasons: why the others were not accepted, with counts.
        rows: the captions, as the stage would have written them.
    """

    source: str
    pictures: int
    captions: int
    accepted: int
    output_tokens: int
    seconds: float
    selected: int
    reasons: dict[str, int]
    rows: pa.Table

    @property
    def seconds_for_all(self) -> float:
        """Wall seconds for the whole selection with one worker, at this rate."""
        return self.seconds / self.pictures * self.selected

    def text(self) -> str:
        """For a person."""
        rate = self.captions / self.seconds
        tokens = self.output_tokens / self.captions
        lines = [
            f"{self.captions:,} captions of {self.pictures:,} pictures in {self.seconds:.1f} s: "
            f"{rate:,.1f} captions/s, {tokens:.1f} output tokens each, "
            f"{self.accepted / self.captions:.1%} accepted",
        ]
        if self.reasons:
            reasons = ", ".join(f"{name} {count}" for name, count in self.reasons.items())
            lines.append(f"not accepted: {reasons}")
        lines.append(
            f"all {self.selected:,} pictures with one worker: "
            f"about {self.seconds_for_all / 3600:.2f} h, written as {self.source}"
        )
        shown = self.rows.filter(pc.field("status") == OK).slice(0, _EXAMPLES)
        for kind, text in zip(
            *(shown.column(n).to_pylist() for n in ("kind", "text")), strict=True
        ):
            lines.append(f"{kind}: {text}")
        return "\n".join(lines)


def rehearse(dataset: Dataset, stage: CaptionStage, count: int) -> Rehearsal:
    """Caption the first `count` selected pictures and measure.

    Raises:
        DatasetError: no picture is selected.
    """
    pictures: list[tuple[str, bytes, str | None]] = []
    selected = 0
    for shard in dataset.shards():
        alt_texts = stage.selected(dataset, shard)
        selected += len(alt_texts)
        if len(pictures) < count and alt_texts:
            for key, picture, _ in iter_shard(dataset, shard):
                if key in alt_texts and len(pictures) < count:
                    pictures.append((key, picture, alt_texts[key]))
    if not pictures:
        raise DatasetError(f"Nothing is selected in {dataset.directory}, so nothing to caption.")
    engine = stage.opened()
    started = time.perf_counter()
    tables = []
    for plan in stage.plans.values():
        pending = Pending()
        for index in range(stage.settings.samples_per_image):
            for key, picture, alt_text in pictures:
                pending.add(key, index, picture, alt_text)
        tables.append(caption_kind(engine, stage.captioner, plan, pending))
    seconds = time.perf_counter() - started
    rows = pa.concat_tables(tables)
    reasons = Counter(reason for reason in rows.column("reason").to_pylist() if reason)
    return Rehearsal(
        source=stage.source,
        pictures=len(pictures),
        captions=rows.num_rows,
        accepted=pc.sum(pc.equal(rows.column("status"), OK)).as_py(),
        output_tokens=pc.sum(rows.column("output_tokens")).as_py() or 0,
        seconds=seconds,
        selected=selected,
        reasons=dict(reasons.most_common()),
        rows=rows,
    )
