"""Progress bars with rate and time left: live on a terminal, one line now and then in a log.

Whoever works through rows says `advance(rows)`, and need not know who listens: nobody, a bar of its
own process, or a runner that tells another process (pipelines.runners.told).
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from curate.base.telling.events import Level, emit, is_quiet
from curate.base.telling.words import visible

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


def tell(sentence: str, level: Level = "info") -> None:
    """Print a sentence on stderr, above a bar that may stand there; what is told here is shown
    with control characters as marks (`visible`)."""
    emit("told", level, text=sentence)
    if not is_quiet():
        tqdm.write(visible(sentence), file=sys.stderr)


def progress(
    total: int | None, description: str, unit: str = "sample", initial: int = 0, **options: Any
) -> tqdm[Any]:
    """A tqdm bar on stderr that shows count, rate and time left.

    On a terminal its clock goes on while nothing is counted (a model is loaded, say). In a log file
    (stderr is no terminal) it prints at most every ten seconds, so a run of hours leaves hundreds
    of lines and not a million carriage returns.
    """
    terminal = sys.stderr.isatty() and not is_quiet()
    return (_Ticking if terminal else _Counting)(
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
        file=_Nowhere() if is_quiet() else sys.stderr,
        **options,
    )


class _Nowhere(io.StringIO):
    """Keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


class _Counting(tqdm):  # type: ignore[type-arg]
    """A bar whose end is an event."""

    def close(self) -> None:
        if not self.disable:
            seconds = round(self.format_dict["elapsed"], 3)
            what, unit = str(self.desc).rstrip(" :"), self.unit.strip()
            emit("counted", what=what, done=self.n, total=self.total, unit=unit, seconds=seconds)
        super().close()


class _Ticking(_Counting):
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
