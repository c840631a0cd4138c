"""When nothing is accepted any more: blocks of captions are tallied, and a hopeless run ends.

A key without credit, a model that was swapped, a prompt that no answer fits: each fails or rejects
every caption from some moment on. Whoever runs the captioner asks an `Acceptance` after each block.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import DatasetError
from curate.base.files import read_json, write_json
from curate.base.telling.words import amount
from curate.served.reply import CONTENT_FILTER, REFUSED
from curate.store.dataset import Dataset
from recaption.captioning.drafts import OK
from recaption.engines.protocol import BROKEN_PICTURE, NO_PICTURE

MISSING_PICTURE = "missing_picture"
NO_SOURCE = "no_source_caption"
"""Reason of a row whose caption, of which it would be made, was itself not accepted."""
# What says something of the picture and nothing of the captioner: a first shard may be full of it.
_OF_THE_PICTURE = {CONTENT_FILTER, REFUSED, BROKEN_PICTURE, NO_PICTURE, MISSING_PICTURE, NO_SOURCE}

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Tally:
    """What became of a block of captions.

    Attributes:
        asked: rows.
        accepted: those with a text.
        unaccepted: those that failed or were rejected for a reason that is not their picture's.
        reasons: "failed: http_402" or "rejected: loop" -> rows that were not accepted.
        words: the engine's own, of the last row that failed.
        since: when the first row was asked for, ISO 8601; empty where nobody noted it.
    """

    asked: int
    accepted: int
    unaccepted: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    words: str = ""
    since: str = ""

    @classmethod
    def of(cls, rows: pa.Table, since: datetime | None = None) -> Self:
        """The tally of rows with status, reason and detail, such as CAPTIONS."""
        bad = rows.filter(pc.field("status") != OK)
        statuses, reasons, details = (
            bad.column(name).to_pylist() for name in ("status", "reason", "detail")
        )
        return cls(
            asked=rows.num_rows,
            accepted=rows.num_rows - bad.num_rows,
            unaccepted=sum(reason not in _OF_THE_PICTURE for reason in reasons),
            reasons=dict(Counter(f"{s}: {r}" for s, r in zip(statuses, reasons, strict=True))),
            words=next((detail for detail in reversed(details) if detail), ""),
            since=since.isoformat() if since else "",
        )

    def to_json(self) -> str:
        """For `from_json` in another process."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


class Acceptance:
    """Follows a run block by block, in the order in which they come."""

    def __init__(self, limit: int) -> None:
        """`limit`: captions in a row without one accepted that end the run; 0 is none."""
        self._limit = limit
        self._accepted = 0
        self._fruitful: Tally | None = None  # the last block with an accepted caption,
        self._streak: list[Tally] = []  # and those since

    def add(self, tally: Tally) -> None:
        """A block is done. One accepted caption in it starts the count anew."""
        self._accepted += tally.accepted
        if tally.accepted:
            self._fruitful, self._streak = tally, []
        else:
            self._streak.append(tally)

    @property
    def collapsed(self) -> bool:
        """Whether the run should end."""
        unaccepted = sum(tally.unaccepted for tally in self._streak)
        return 0 < self._limit <= unaccepted

    @property
    def fruitless(self) -> bool:
        """Whether something was asked for, and nothing was accepted."""
        return bool(self._streak) and not self._accepted

    @property
    def since(self) -> datetime:
        """When the captioner was still well: as the last block with an accepted caption began."""
        blocks = [*self._streak, *([self._fruitful] if self._fruitful else [])]
        return min(datetime.fromisoformat(tally.since) for tally in blocks)

    def sentence(self, what: str) -> str:
        """What a person reads; `what` was asked for, such as "caption"."""
        rows = sum(tally.asked for tally in self._streak)
        reasons: Counter[str] = Counter()
        for tally in self._streak:
            reasons.update(tally.reasons)
        told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3))
        words = next((tally.words for tally in reversed(self._streak) if tally.words), "")
        said = f"; the last error: {words.rstrip('.')}" if words else ""
        if self.collapsed:
            return (
                f"Stopped, for none of the last {amount(rows, what)} was accepted ({told}{said}). "
                f"What was written is kept, and the same command asks for these again; "
                f"stop_after_unaccepted sets when to stop."
            )
        return (
            f"None of {amount(rows, what)} asked for was accepted ({told}{said}). They "
            f"are kept with their reasons, and the same command asks for them again."
        )


# ---- what a later run asks for again ------------------------------------------------------------


def _note(dataset: Dataset, source: str) -> Path:
    return dataset.directory / "captioners" / f"{source}.collapses.json"


def note_collapse(dataset: Dataset, source: str, since: datetime) -> None:
    """Note that what was written since then and not accepted is still to be captioned.

    The rows stay, with their reasons, until others stand in their place.
    """
    until = datetime.now(UTC)
    spans = [*collapses(dataset, source), (min(since, until), until)]
    write_json(_note(dataset, source), [[moment.isoformat() for moment in span] for span in spans])


def collapses(dataset: Dataset, source: str) -> list[Span]:
    """The spans of time in which nothing of `source` was accepted.

    Raises:
        DatasetError: the note is damaged.
    """
    path = _note(dataset, source)
    if not path.exists():
        return []
    try:
        return [
            (datetime.fromisoformat(since), datetime.fromisoformat(until))
            for since, until in read_json(path)
        ]
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} is damaged; delete it, and give --retry-failed to caption again what failed."
        ) from error


def without_collapsed(rows: pa.Table, spans: list[Span]) -> pa.Table:
    """Rows with status and created_at, but for those of a collapse that were not accepted."""
    for span in spans:
        since, until = (pa.scalar(moment, pa.timestamp("ms", tz="UTC")) for moment in span)
        created: Any = pc.field("created_at")
        accepted: Any = pc.field("status") == OK
        rows = rows.filter(accepted | (created < since) | (created > until))
    return rows
