"""Rows through a model in this process: prepared ahead in threads, halved where a batch fails."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from curate.base.progress import advance
from curate.base.reasons import words
from curate.base.threads import in_threads
from recaption.engines.attention import attend
from recaption.engines.pictures import BrokenPictureError, decode
from recaption.engines.protocol import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    NO_PICTURE,
    CaptionOutcome,
    CaptionRequest,
)

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """Rows that go through the model together, with what became of the others before it.

    Attributes:
        rows: numbers of the request's rows that are left.
        images: each row's picture, decoded; None for a text alone.
        sizes: (width, height) of each row's picture as shown; None for a text alone.
        lost: outcomes of rows that left.
        inputs: what the model takes; None where `failure` says why not.
        prompt_tokens: one a row, or None where nobody counts them.
    """

    rows: list[int] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    lost: dict[int, CaptionOutcome] = field(default_factory=dict)
    inputs: Any = None
    prompt_tokens: list[int] | None = None
    failure: str | None = None

    @classmethod
    def decoded(
        cls, request: CaptionRequest, rows: Sequence[int], image_size: int, texts_alone: str = ""
    ) -> Batch:
        """Rows with their pictures; those whose picture is broken are lost.

        Args:
            image_size: longest side in pixels; 0 keeps the stored size.
            texts_alone: why the model takes no row without a picture; empty where it does.
        """
        batch = cls()
        for row in rows:
            encoded, image = request.pictures[row], None
            if encoded is None and texts_alone:
                batch.lost[row] = CaptionOutcome(error=NO_PICTURE, detail=texts_alone)
                continue
            if encoded is not None:
                try:
                    image = decode(encoded, image_size)
                except BrokenPictureError as error:
                    batch.lost[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
                    continue
            batch.rows.append(row)
            batch.images.append(image)
            batch.sizes.append(image.size if image is not None else None)
        return batch


def caption_in_batches(
    groups: Iterable[Sequence[int]],
    prepare: Callable[[Sequence[int]], Batch],
    write: Callable[[Batch], list[CaptionOutcome]],
    threads: int,
    is_dead: Callable[[Exception], bool],
) -> list[CaptionOutcome]:
    """One outcome a row, in the rows' order.

    A batch that fails is halved until the bad rows stand alone, which also finds a batch that fits
    where memory ran out.

    Args:
        groups: rows that go together; each row of the request once.
        prepare: called in `threads` threads, ahead of `write`.
        write: outcomes of a batch's rows; may raise.
        is_dead: whether what `write` raised means that the process has to be replaced. It is
            raised on.
    """
    outcomes: dict[int, CaptionOutcome] = {}
    started = time.perf_counter()

    def run(batch: Batch) -> None:
        outcomes.update(batch.lost)
        failure = batch.failure
        if batch.rows and failure is None:
            attend(batch.rows)
            try:
                written = write(batch)
            except Exception as error:
                if is_dead(error):
                    raise
                # Models and processors refuse rows in their own ways.
                failure = words(error)
            else:
                outcomes.update(zip(batch.rows, written, strict=True))
        batch.inputs, batch.images = None, []
        if failure is None:
            return
        if len(batch.rows) == 1:
            logger.warning("a row could not be captioned: %s", failure)
            outcomes[batch.rows[0]] = CaptionOutcome(error=ENGINE_ERROR, detail=failure)
            return
        middle = -(-len(batch.rows) // 2)
        for half in (batch.rows[:middle], batch.rows[middle:]):
            run(prepare(half))

    for batch in in_threads(prepare, groups, threads):
        before = len(outcomes)
        run(batch)
        advance(len(outcomes) - before)
    share = (time.perf_counter() - started) / max(1, len(outcomes))
    return [
        outcome if outcome.text is None else replace(outcome, latency_seconds=share)
        for outcome in (outcomes[row] for row in sorted(outcomes))
    ]


def consecutive(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """`rows` in groups of `size`."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def threads_of(setting: int) -> int:
    """Threads that prepare batches: as set; 0 is one a CPU, 8 at most."""
    return setting or min(8, os.cpu_count() or 1)
