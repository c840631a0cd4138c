"""Pictures made ready for sending ahead of whoever sends them, in threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from recaption.engines.pictures import PictureFormat, for_sending, size_as_it_is
from recaption.engines.protocol import CaptionRequest

Ready = tuple[bytes | None, tuple[int, int] | None]
"""A file to send, or None, and its (width, height) in pixels."""


class PicturesAhead:
    """Rows and their pictures; those that need work are made ready ahead of the senders.

    Iterating gives a row's number with its picture or a future of it. Memory: `ahead` pictures.
    """

    def __init__(
        self,
        request: CaptionRequest,
        threads: ThreadPoolExecutor,
        longest_side: int,
        picture_format: PictureFormat,
        ahead: int = 16,
    ) -> None:
        self._request = request
        self._threads = threads
        self._side = longest_side
        self._format = picture_format
        self._rows = iter(range(len(request)))
        self._ahead: deque[tuple[int, Ready | asyncio.Future[Ready]]] = deque()
        self._depth = ahead

    def __iter__(self) -> Iterator[tuple[int, Ready | asyncio.Future[Ready]]]:
        return self

    def __next__(self) -> tuple[int, Ready | asyncio.Future[Ready]]:
        while len(self._ahead) < self._depth and (row := next(self._rows, None)) is not None:
            self._ahead.append((row, self._ready(row)))
        if not self._ahead:
            raise StopIteration
        return self._ahead.popleft()

    def _ready(self, row: int) -> Ready | asyncio.Future[Ready]:
        stored = self._request.pictures[row]
        if stored is None:
            return None, None
        size = size_as_it_is(stored, self._side, self._format)
        if size is not None:
            return stored, size
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, for_sending, stored, self._side, self._format)
