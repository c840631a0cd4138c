"""Requests that come one by one, captioned in batches.

Requests of equal sampling and system turn share a batch. A batch starts when it is full or when
its oldest request has waited long enough; while the engine works, the next one gathers. Since an
engine's words do not depend on a row's neighbours, batching changes speed alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from recaption.engines.protocol import (
    ENGINE_ERROR,
    CaptionEngine,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)

logger = logging.getLogger(__name__)


class QueueFullError(Exception):
    """As many requests wait as may."""


@dataclass(frozen=True)
class Kind:
    """What all rows of a batch have in common."""

    sampling: Sampling
    system: str
    has_picture: bool


@dataclass(frozen=True)
class _Waiting:
    picture: bytes | None
    prompt: str
    seed: int
    arrived: float
    answer: asyncio.Future[CaptionOutcome]


class Batcher:
    """Feeds one engine from many coroutines. Made, used and closed on one event loop."""

    def __init__(
        self, engine: CaptionEngine, batch_size: int, max_wait: float, most_waiting: int
    ) -> None:
        """
        Args:
            batch_size: requests a batch at most.
            max_wait: seconds that a request waits for company while the engine is free.
            most_waiting: requests that may wait, the batch in the engine not counted.
        """
        self._engine = engine
        self._batch_size = batch_size
        self._max_wait = max_wait
        self._most_waiting = most_waiting
        self._queues: dict[Kind, deque[_Waiting]] = {}
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._worker = asyncio.create_task(self._work())

    @property
    def worker(self) -> asyncio.Task[None]:
        """Ends after `close`, or with the error that an engine raised: it cannot go on then."""
        return self._worker

    async def caption(
        self, kind: Kind, picture: bytes | None, prompt: str, seed: int
    ) -> CaptionOutcome:
        """The outcome of one row; a caller that is cancelled while it waits takes it back.

        Raises:
            QueueFullError: too many requests wait already, or the batcher is closed.
        """
        if self._waiting >= self._most_waiting or self._closing or self._worker.done():
            raise QueueFullError
        loop = asyncio.get_running_loop()
        row = _Waiting(picture, prompt, seed, loop.time(), loop.create_future())
        self._queues.setdefault(kind, deque()).append(row)
        self._waiting += 1
        self._arrived.set()
        return await row.answer

    async def close(self) -> None:
        """Caption what waits, without waiting for company, and end."""
        self._closing = True
        self._arrived.set()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while self._queues or not self._closing:
            found = self._next()
            if isinstance(found, Kind):
                await self._run(found, self._take(found))
                continue
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), found)
            except TimeoutError:
                continue

    def _next(self) -> Kind | float | None:
        """The kind whose batch starts now, else seconds until one does, else None."""
        now = asyncio.get_running_loop().time()
        due: dict[Kind, float] = {}
        for kind, rows in self._queues.items():
            full = len(rows) >= self._batch_size or self._closing
            due[kind] = rows[0].arrived if full else rows[0].arrived + self._max_wait
        if not due:
            return None
        first = min(due, key=lambda kind: due[kind])
        return first if due[first] <= now else due[first] - now

    def _take(self, kind: Kind) -> list[_Waiting]:
        rows = self._queues[kind]
        taken = [rows.popleft() for _ in range(min(self._batch_size, len(rows)))]
        if not rows:
            del self._queues[kind]
        self._waiting -= len(taken)
        # A client that went away while it waited costs nothing.
        return [row for row in taken if not row.answer.cancelled()]

    async def _run(self, kind: Kind, rows: list[_Waiting]) -> None:
        if not rows:
            return
        request = CaptionRequest(
            pictures=[row.picture for row in rows],
            prompts=[row.prompt for row in rows],
            seeds=[row.seed for row in rows],
            sampling=kind.sampling,
            system=kind.system,
        )
        loop = asyncio.get_running_loop()
        try:
            outcomes = await loop.run_in_executor(self._thread, self._engine.caption, request)
        except Exception as error:
            # An engine gives one outcome a row; what it raises means that it is broken for good.
            lost = CaptionOutcome(error=ENGINE_ERROR, detail=type(error).__name__)
            waiting = [row for queue in self._queues.values() for row in queue]
            for row in [*rows, *waiting]:
                _answer(row, lost)
            self._queues.clear()
            raise
        for row, outcome in zip(rows, outcomes, strict=True):
            _answer(row, outcome)


def _answer(row: _Waiting, outcome: CaptionOutcome) -> None:
    if not row.answer.done():
        row.answer.set_result(outcome)
