"""Seconds, CPU seconds and peak memory of a stage, over the whole process tree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

SAMPLE_SECONDS = 0.5
GROWN = 1.01


@dataclass
class StageCost:
    """What one stage cost. Filled when the `measured` block ends."""

    stage: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextmanager
def measured(stage: str) -> Iterator[StageCost]:
    """Measure the block: wall seconds, CPU seconds, and the peak of the process tree's memory.

    Memory is the sum of each process's proportional set size (pages shared by n processes count
    1/n in each), so Ray's shared store is not counted once a worker. The kernel walks every page
    for that, 50 ms a GB, so twice a second only private pages are summed, and all are looked at
    where those are more than ever before. A shorter spike can be missed, and what a process
    computes in the last half second before it ends.
    """
    cost = StageCost(stage)
    stop = threading.Event()
    before = _tree_seconds()
    used = dict(before)

    def watch() -> None:
        most_private = 0.0
        while not stop.is_set():
            used.update(_tree_seconds())
            private = _tree_memory(_private)
            if private > most_private * GROWN:
                most_private = private
                cost.peak_memory_bytes = max(cost.peak_memory_bytes, _tree_memory(_proportional))
            stop.wait(SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch, daemon=True)
    started = time.perf_counter()
    watcher.start()
    try:
        yield cost
    finally:
        stop.set()
        watcher.join()
        cost.seconds = time.perf_counter() - started
        used.update(_tree_seconds())
        cost.cpu_seconds = sum(used.values()) - sum(before.values())


def _private(process: psutil.Process) -> int:
    """Bytes of pages that no other process has, about."""
    info = process.memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def _proportional(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", 0) or info.rss)


def _tree_seconds() -> dict[tuple[int, float], float]:
    """(process, its start) -> CPU seconds that it has used itself."""
    root = psutil.Process()
    found = {}
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            found[process.pid, process.create_time()] = times.user + times.system
    return found


def _tree_memory(of: Callable[[psutil.Process], int]) -> int:
    root = psutil.Process()
    total = 0
    for process in [root, *root.children(recursive=True)]:
        # A worker that ended between the listing and the look holds no memory.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += of(process)
    return total
