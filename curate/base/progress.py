"""Progress bars with rate and time left: live on a terminal, one line now and then in a log.

Whoever works through rows says `advance(rows)`, and need not know who listens: nobody, a bar of its
own process, or a runner that tells another process (pipelines.runners.told).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_TICK_SECONDS = 2.0

_heard: ContextVar[Callable[[float], object] | None] = ContextVar("heard", default=None)


def advance(rows: float = 1) -> None:
    """So many more rows of the task at hand are done. Cheap: call it for every row or batch.

    It is heard in the thread that took the task, and in coroutines that were started there.
    """
    if (heard := _heard.get()) is not None:
        heard(rows)


@contextmanager
def counted(heard: Callable[[float], object]) -> Iterator[None]:
    """Let `heard` be called with what `advance` is called with inside of the block."""
    token = _heard.set(heard)
    try:
        yield
    finally:
        _heard.reset(token)


def tell(sentence: str) -> None:
    """Print a sentence on stderr, above a bar that may stand there."""
    tqdm.write(sentence, file=sys.stderr)


def progress(
    total: int | None, description: str, unit: str = "sample", initial: int = 0, **options: Any
) -> tqdm[Any]:
    """A tqdm bar on stderr that shows count, rate and time left.

    On a terminal its clock goes on while nothing is counted (a model is loaded, say). In a log file
    (stderr is no terminal) it prints at most every ten seconds, so a run of hours leaves hundreds
    of lines and not a million carriage returns.
    """
    terminal = sys.stderr.isatty()
    return (_Ticking if terminal else tqdm)(
        total=total,
        initial=initial,
        desc=description,
        unit=f" {unit}",
        unit_scale=total is not None and total >= 100_000,
        mininterval=0.2 if terminal else 10.0,
        maxinterval=10.0,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        smoothing=0.1,
        file=sys.stderr,
        **options,
    )


class _Ticking(tqdm):  # type: ignore[type-arg]
    """A bar that is drawn every two seconds whatever its owner does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._closed = threading.Event()
        super().__init__(*arguments, **options)
        if not self.disable:
            threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._closed.wait(_TICK_SECONDS):
            self.refresh()

    def close(self) -> None:
        self._closed.set()
        super().close()
