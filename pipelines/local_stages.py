"""Run a stage in a few processes of this machine, without Ray.

For stages that load no model (the download): starting Ray costs as much as many pictures do. The
contract is that of `pipelines.ray_stages.run_stage`: one shard a call, long-lived workers, two
tries a shard, finished shards skipped. On a cluster (RAY_ADDRESS) Ray is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import curate.base.errors
from curate.base.errors import CaplabError, StageError
from curate.base.progress import progress
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.children import tied
from pipelines.failures import in_words
from pipelines.ray_stages import ATTEMPTS_PER_SHARD, StageSummary, rows_of, run_stage

_WORKER_ENV = {
    # One thread for each library: the stage has threads of its own.
    "OMP_NUM_THREADS": "1",
    # glibc gives each thread an arena and returns large blocks to the system at once; pictures
    # come and go in many threads, and every page would be fetched and cleared anew.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 27),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}


def run_light_stage(
    stage: Stage, dataset: Dataset, workers: int, shards: Sequence[str] | None = None
) -> StageSummary:
    """Run a stage that needs no model and no GPU: here, or on the cluster where there is one.

    Raises:
        CaplabError, StageError: see `run_stage`.
    """
    if os.environ.get("RAY_ADDRESS"):
        return run_stage(stage, dataset, workers, shards=shards)
    return run_locally(stage, dataset, workers, shards)


def run_locally(
    stage: Stage, dataset: Dataset, workers: int, shards: Sequence[str] | None = None
) -> StageSummary:
    """Run `stage` over the shards that lack its tables, in processes of this machine.

    Args:
        workers: processes at most; fewer when there are fewer shards.
        shards: names of the shards; None means all of the dataset.

    Raises:
        CaplabError: the stage could not open (a setting is wrong).
        StageError: some shards failed twice; the others are done and a rerun takes up the rest.
    """
    names = list(shards if shards is not None else dataset.shards())
    todo = [shard for shard in names if not stage.is_done(dataset, shard)]
    if not todo:
        return StageSummary(stage.name, 0, len(names))
    rows = {shard: rows_of(dataset, shard) for shard in names}
    total = sum(rows.values())
    finished = total - sum(rows[shard] for shard in todo)
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
    for shard in todo:
        waiting.put(shard)
    message = pickle.dumps((stage, dataset))
    crew = [
        threading.Thread(target=_serve, args=(message, waiting, answers), daemon=True)
        for _ in range(min(workers, len(todo)))
    ]
    for thread in crew:
        thread.start()
    attempts: Counter[str] = Counter()
    left = len(todo)
    try:
        with progress(total, f"{stage.name:<11}", initial=finished) as bar:
            while left:
                shard, answer = answers.get()
                attempts[shard] += 1
                if "counts" in answer:
                    failures.pop(shard, None)
                    counts.update(answer["counts"])
                    bar.update(rows[shard])
                    left -= 1
                    continue
                _raise_known(answer)
                failures[shard] = answer["error"]
                if attempts[shard] < ATTEMPTS_PER_SHARD:
                    waiting.put(shard)
                else:
                    left -= 1
    finally:
        with contextlib.suppress(queue.Empty):  # after an error nothing more is begun
            while True:
                waiting.get_nowait()
        for _ in crew:
            waiting.put(None)
    for thread in crew:
        thread.join()
    if failures:
        shard, reason = next(iter(failures.items()))
        raise StageError(
            f"Stage {stage.name} failed on {len(failures)} of {len(todo)} shards, first "
            f"{shard}: {reason}. What was finished is kept; the same command takes up the rest."
        )
    return StageSummary(stage.name, len(todo), len(names) - len(todo), dict(counts))


def _serve(
    message: bytes,
    waiting: queue.SimpleQueue[str | None],
    answers: queue.SimpleQueue[tuple[str, dict[str, Any]]],
) -> None:
    """Hand shards to one worker process, and start another when it dies."""
    worker: subprocess.Popen[bytes] | None = None
    while (shard := waiting.get()) is not None:
        if worker is None:
            try:
                worker = _start(message)
            except OSError as error:
                answers.put((shard, {"error": in_words(error), "kind": None}))
                continue
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(shard.encode() + b"\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line:
            answers.put((shard, json.loads(line)))
        else:
            code = worker.wait()
            worker = None
            answers.put((shard, {"error": f"its worker ended with {code}", "kind": None}))
    if worker is not None:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()


def _start(message: bytes) -> subprocess.Popen[bytes]:
    env = {**_WORKER_ENV, **os.environ}
    worker = subprocess.Popen(
        tied([sys.executable, "-m", "pipelines.stage_worker"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
    )
    assert worker.stdin is not None
    worker.stdin.write(struct.pack("!Q", len(message)) + message)
    worker.stdin.flush()
    return worker


def _raise_known(answer: dict[str, Any]) -> None:
    """A setting that is wrong stops the run at once, with its own sentence."""
    known = getattr(curate.base.errors, answer["kind"] or "", None)
    if isinstance(known, type) and issubclass(known, CaplabError):
        raise known(answer["error"])
