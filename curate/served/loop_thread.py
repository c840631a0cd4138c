"""An event loop on a thread of its own, for blocking callers of asynchronous work."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_STOP_SECONDS = 5.0


class LoopThread:
    """Runs coroutines for any number of calling threads, until `close` or the end of its owner.

    A thread of its own, because a notebook's thread already runs a loop; one for a lifetime, so
    that connections stay open from call to call.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._last: list[Callable[[], Awaitable[None]]] = []
        thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        thread.start()
        # Bound to what it needs and not to self, or self would never be garbage.
        self._finalizer = weakref.finalize(self, _stop, self._loop, thread, self._last)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end from another thread; an interrupt of the caller cancels the work."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def at_end(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` awaited before the loop stops."""
        self._last.append(work)

    def close(self) -> None:
        """Stop the loop and its thread; again is harmless."""
        self._finalizer()


def _stop(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    last: list[Callable[[], Awaitable[None]]],
) -> None:
    async def end() -> None:
        for work in last:
            await work()
        loop.stop()

    if thread.is_alive() and thread is not threading.current_thread():
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(_STOP_SECONDS)
        if not thread.is_alive():
            loop.close()
