"""What happens in a run, told once: whoever listens (a log file, a person with -v) gets all of it.

An event is a name and plain values, such as `emit("shard", stage="score", shard="00002", rows=80)`.
Nobody listens by default, and an event then costs a look at an empty list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Level = Literal["info", "warning", "error"]
Listener = Callable[[str, Level, dict[str, Any]], None]

_listeners: list[Listener] = []
_quiet = False


def emit(event: str, level: Level = "info", **values: Any) -> None:
    """Tell all listeners; values are what JSON can hold."""
    for listener in _listeners:
        listener(event, level, values)


def listen(listener: Listener) -> None:
    """Have events told to a function, until `forget`."""
    _listeners.append(listener)


def be_quiet(quiet: bool) -> None:
    """Whether bars and remarks are left out on stderr; events are told all the same."""
    global _quiet
    _quiet = quiet


def forget() -> None:
    """Nobody listens any more, and nothing is quiet: the end of a command."""
    _listeners.clear()
    be_quiet(False)


def is_quiet() -> bool:
    """See `be_quiet`."""
    return _quiet
