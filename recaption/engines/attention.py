"""At which rows an engine is, told to whoever watches over it.

An engine says `attend(rows)` before each batch, by the rows' numbers in the request. Whoever made
the request has said before whose rows these are; whoever watches can tell an engine that works from
one that hangs, and, after its process is gone, at which pictures it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from recaption.engines.protocol import CaptionEngine, CaptionOutcome, CaptionRequest


class Watcher(Protocol):
    """Follows one task; its calls come from the thread that took the task."""

    def at(self, kind: str, keys: Sequence[str]) -> None:
        """The engine turns to the captions of these pictures; none: to some of the request."""

    def idle(self) -> None:
        """Nothing is asked of the engine."""


@dataclass(frozen=True)
class _Asked:
    watcher: Watcher
    kind: str
    keys: Sequence[str]


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_asked: ContextVar[_Asked | None] = ContextVar("asked", default=None)


@contextmanager
def watched_by(watcher: Watcher | None) -> Iterator[None]:
    """Let `watcher` hear what engines that are asked inside of the block attend to."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def asking(kind: str, keys: Sequence[str]) -> Iterator[None]:
    """Inside of the block an engine is asked for captions of these pictures, row by row."""
    watcher = _watcher.get()
    if watcher is None:
        yield
        return
    token = _asked.set(_Asked(watcher, kind, keys))
    watcher.at(kind, ())
    try:
        yield
    finally:
        _asked.reset(token)
    watcher.idle()  # not behind an error: the process may end over it, and where it was is asked


def attend(rows: Sequence[int]) -> None:
    """The engine turns to these rows of the request. Cheap where nobody watches."""
    if (asked := _asked.get()) is not None:
        asked.watcher.at(asked.kind, [asked.keys[row] for row in rows])


@contextmanager
def narrowed(rows: Sequence[int]) -> Iterator[None]:
    """Inside of the block these rows are the request."""
    asked = _asked.get()
    if asked is None:
        yield
        return
    own = _Asked(asked.watcher, asked.kind, [asked.keys[row] for row in rows])
    token = _asked.set(own)
    try:
        yield
    finally:
        _asked.reset(token)


class RowByRow:
    """Asks an engine for one row at a time, so that it is known at which row it was."""

    def __init__(self, engine: CaptionEngine) -> None:
        self._engine = engine
        self.name, self.revision = engine.name, engine.revision

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine."""
        outcomes = []
        for row in range(len(request)):
            with narrowed([row]):
                outcomes += self._engine.caption(request.part([row]))
        return outcomes
