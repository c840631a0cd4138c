"""Run a command as a user would, and count what its whole process tree cost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from curate.base.errors import CaplabError
from pipelines.children import tied

_SAMPLE_SECONDS = 0.1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class ProcessCost:
    """Cost of one command, start to end, with every process that it started."""

    wall_seconds: float
    cpu_seconds: float
    """User and system time of all processes."""
    peak_memory_bytes: int
    """Largest sum of resident sizes seen; pages shared by n processes count n times."""
    output: str
    """stdout and stderr."""


def run_measured(
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> ProcessCost:
    """Run `command` to its end and measure it.

    Processes that a command leaves to others (Ray's workers hang below its raylet, which waits for
    nobody) are invisible to wait4, so the tree is read from /proc ten times a second: a process
    loses at most its last tenth of a second.

    Raises:
        CaplabError: it failed or ran past `timeout` seconds; the end of its output is quoted.
    """
    _adopt_orphans(True)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    started = time.perf_counter()
    process = subprocess.Popen(
        tied(command),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seen: dict[tuple[int, float], float] = {}
    peak = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, _sample(before, seen))
            stop.wait(_SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise CaplabError(f"{command[0]} ran longer than {timeout:.0f} s.") from None
    finally:
        wall = time.perf_counter() - started
        stop.set()
        watcher.join()
        _adopt_orphans(False)
        _bury({pid for pid, _ in seen} - {process.pid})
    if process.returncode:
        tail = "\n".join(output.splitlines()[-15:])
        raise CaplabError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{tail}")
    return ProcessCost(wall, sum(seen.values()), peak, output)


def _sample(before: set[int], seen: dict[tuple[int, float], float]) -> int:
    """Note the CPU seconds of every process of ours that is new; return their resident bytes."""
    memory = 0
    for child in psutil.Process().children(recursive=True):
        if child.pid in before:
            continue
        try:
            with child.oneshot():
                times = child.cpu_times()
                seen[(child.pid, child.create_time())] = times.user + times.system
                memory += child.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return memory


def _adopt_orphans(adopt: bool) -> None:
    """Make processes whose parent ended children of ours, so that the tree stays whole (Linux)."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def _bury(adopted: set[int]) -> None:
    """Take the exit codes of adopted processes, lest they stay on as zombies of ours."""
    for pid in adopted:
        with contextlib.suppress(ChildProcessError):  # it had a parent of its own to its end
            os.waitpid(pid, os.WNOHANG)
