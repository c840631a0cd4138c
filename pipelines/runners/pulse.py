"""The pulse of a captioner: what its worker tells of it, and what a driver makes of that.

While the engine is asked, the worker keeps a small file that changes with every batch, beside the
one with which it tells of its rows (told.py). It says at which captions the engine is, so the
driver can see an engine that hangs, and after its process has died, over what.

The driver counts by its own clock how long a file has stayed as it is; other machines' clocks, and
what lies between two calls of the engine (CLIP on a CPU, a slow disk), are no matter.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from curate.base.progress import tell

FIRST_BATCH = 30
"""How much longer than `stuck_after` a run's first batch may take: nothing is known of it."""
SLOWEST = 10
"""How much longer than the slowest batch so far any batch may take."""
_OPENING_SECONDS = 600
"""How often it is told that a captioner is still being opened."""


@dataclass(frozen=True)
class Pulse:
    """What stands in the file: batches begun, the slowest in seconds, and what the engine is at."""

    moves: int
    slowest: float
    kind: str
    keys: tuple[str, ...]

    @property
    def opening(self) -> bool:
        """Whether nothing was asked yet: the captioner is loaded."""
        return not self.moves

    @classmethod
    def read(cls, folder: Path, task: str) -> Pulse | None:
        """None while nothing is asked of the engine, and it is not being opened."""
        try:
            told = json.loads(_file(folder, task).read_text())
        except (FileNotFoundError, ValueError):  # gone, or (on some disks) half replaced
            return None
        return cls(told["moves"], told["slowest"], told["kind"], tuple(told["keys"]))


class TellPulse:
    """The worker's side; a `Watcher`."""

    def __init__(self, folder: Path, task: str) -> None:
        self._folder, self._task = folder, task
        self.slowest = 0.0
        self._moves, self._since, self._attended = 0, 0.0, False

    def opening(self) -> None:
        """The captioner is loaded from now on, until `idle`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tell("", ())

    def at(self, kind: str, keys: Sequence[str]) -> None:
        """A batch begins; the one before it has ended."""
        now = time.monotonic()
        if self._attended:
            self.slowest = max(self.slowest, now - self._since)
        self._moves, self._since, self._attended = self._moves + 1, now, bool(keys)
        self._tell(kind, keys)

    def idle(self) -> None:
        """The engine has answered."""
        if self._attended:
            self.slowest = max(self.slowest, time.monotonic() - self._since)
        self._attended = False
        _file(self._folder, self._task).unlink(missing_ok=True)

    def _tell(self, kind: str, keys: Sequence[str]) -> None:
        told = Pulse(self._moves, self.slowest, kind, tuple(keys))
        file = _file(self._folder, self._task)
        with suppress(OSError):  # a full disk ends the task where it writes what counts
            new = file.with_suffix(".moved")
            new.write_text(json.dumps(vars(told)))
            new.replace(file)


class Pulses:
    """The driver's side: how long each task has been where it is."""

    def __init__(self, folder: Path, stuck_after: float) -> None:
        """`stuck_after`: seconds; 0 waits for ever."""
        self._folder, self._stuck_after = folder, stuck_after
        self._slowest = 0.0
        self._seen: dict[str, tuple[int, float]] = {}
        self._told: Counter[str] = Counter()

    def stuck(self, task: str) -> str | None:
        """What a person reads of an engine that does not move any more."""
        pulse = Pulse.read(self._folder, task)
        if pulse is None or not self._stuck_after:
            self._seen.pop(task, None)
            return None
        self.learn(pulse.slowest)
        now = time.monotonic()
        moves, since = self._seen.get(task, (-1, now))
        if moves != pulse.moves:
            self._seen[task] = (pulse.moves, now)
            return None
        if (
            pulse.opening
        ):  # weights may come from far away: only a person knows how long is too long
            if now - since > _OPENING_SECONDS * (self._told[task] + 1):
                self._told[task] += 1
                tell(f"the captioner has been loading for {(now - since) / 60:.0f} minutes")
            return None
        if now - since <= self._limit():
            return None
        return f"the captioner did not move for {now - since:.0f} s"

    def learn(self, slowest: float) -> None:
        """Some batch took so many seconds."""
        self._slowest = max(self._slowest, slowest)

    def left_at(self, task: str) -> Pulse | None:
        """Where a task was whose worker is gone; it is forgotten."""
        pulse = Pulse.read(self._folder, task)
        _file(self._folder, task).unlink(missing_ok=True)
        self._seen.pop(task, None)
        del self._told[task]
        return pulse

    def _limit(self) -> float:
        if not self._slowest:
            return FIRST_BATCH * self._stuck_after
        return max(self._stuck_after, SLOWEST * self._slowest)


def _file(folder: Path, task: str) -> Path:
    return folder / f"{task}.pulse"
