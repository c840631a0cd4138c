"""Run a command as a user would, and count what its whole process tree cost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from curate.base.errors import CaplabError
from pipelines.bench.common.children import tied

CAPLAB = (sys.executable, "-m", "pipelines.cli")
"""The command `caplab` of this installation."""
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

    @property
    def peak_mib(self) -> int:
        """Peak memory in MiB."""
        return self.peak_memory_bytes >> 20


def options(settings: Mapping[str, object]) -> list[str]:
    """{"image_size": 512} as ["--image-size", "512"]."""
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    return [part for pair in pairs for part in pair]


def run_measured(
    command: Sequence[object],
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
        for pid in {pid for pid, _ in seen} - {process.pid}:
            with contextlib.suppress(ChildProcessError):  # it had a parent of its own to its end
                os.waitpid(pid, os.WNOHANG)  # lest it stays on as a zombie of ours
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
        with (
            contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied),
            child.oneshot(),
        ):
            times = child.cpu_times()
            seen[(child.pid, child.create_time())] = times.user + times.system
            memory += child.memory_info().rss
    return memory


def _adopt_orphans(adopt: bool) -> None:
    """Make processes whose parent ended children of ours, so that the tree stays whole (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)
