"""How many rows of a task are done, told by its worker while the task is under way.

A worker writes the number into a small file of the dataset, at most once a second, and the driver
looks there now and then: every worker of every runner can write there anyway, it costs nothing that
shows, and it needs nobody whom all of them have to call.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from curate.base.progress import counted

_EVERY_SECONDS = 1.0


class Board:
    """Moves a bar by the rows of tasks that ended and of those that are under way."""

    def __init__(self, folder: Path, bar: tqdm[Any]) -> None:
        """`folder`: where workers tell; what a killed run left in it goes."""
        self._folder, self._bar = folder, bar
        self._ended = bar.n
        self._lock = threading.Lock()
        self.clear()

    def read(self) -> None:
        """Look for news."""
        with self._lock:
            told = sum(int(file.read_text() or 0) for file in self._folder.glob("*.rows"))
            if (news := self._ended + told - self._bar.n) > 0:
                self._bar.update(news)

    def end(self, task: str, rows: int) -> None:
        """A task is over, well or not; `rows` of it are done."""
        _file(self._folder, task).unlink(missing_ok=True)
        self._ended += rows
        self.read()

    def clear(self) -> None:
        """Nothing is under way any more."""
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def telling(
    folder: Path, task: str, most: float, heard: Callable[[], object] | None
) -> Iterator[None]:
    """Tell in `folder` what `advance` counts inside of the block.

    Args:
        most: rows of the task; a second try of some counts no more.
        heard: called when there is news, where the driver is this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = _file(folder, task)
    lock = threading.Lock()
    done, next_at = 0.0, time.monotonic() + _EVERY_SECONDS

    def count(rows: float) -> None:
        nonlocal done, next_at
        with lock:
            done += rows
            if time.monotonic() < next_at:
                return
            next_at = time.monotonic() + _EVERY_SECONDS
            with suppress(OSError):  # a full disk ends the task where it writes what counts
                file.with_suffix(".new").write_text(f"{min(done, most):.0f}")
                file.with_suffix(".new").replace(file)
        if heard is not None:
            heard()

    with counted(count):
        yield


def _file(folder: Path, task: str) -> Path:
    return folder / f"{task}.rows"
