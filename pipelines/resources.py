"""Seconds and peak memory of a stage, over the whole process tree (Ray's workers included)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

SAMPLE_SECONDS = 0.5


@dataclass
class StageCost:
    """What one stage cost. Filled when the `measured` block ends."""

    stage: str
    seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextmanager
def measured(stage: str) -> Iterator[StageCost]:
    """Measure the block: wall seconds, and the peak of the process tree's memory.

    Memory is the sum of each process's proportional set size (pages shared by n processes count
    1/n in each), so Ray's shared store is not counted once a worker. Sampled twice a second: a
    shorter spike can be missed.
    """
    cost = StageCost(stage)
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            cost.peak_memory_bytes = max(cost.peak_memory_bytes, _tree_memory())
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


def _tree_memory() -> int:
    root = psutil.Process()
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # A worker that ended between the listing and the look holds no memory.
            continue
    return total
