"""The one loop that hands out work: few tasks in flight, two tries each, failures as data."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic

from curate.base.errors import CaplabError
from pipelines.runners.protocol import Result, Task, Worker
from pipelines.terminal.failures import in_words

# A task whose worker raised or died is tried once more on a fresh worker: a lost machine or a
# passing fault should not stop a run, a fault that repeats should be seen.
TRIES = 2
BEAT_SECONDS = 2.0


@dataclass(frozen=True)
class Failed:
    """Why a task failed as often as it was tried."""

    reason: str


@dataclass
class _Under(Generic[Task, Result]):
    """A task that is under way."""

    task: Task
    tries: int
    worker: Worker[Task, Result]


def hand_out(
    workers: Sequence[Worker[Task, Result]],
    tasks: Iterable[Task],
    at_once: int = 1,
    tries: int = TRIES,
    beat: Callable[[], object] | None = None,
) -> Iterator[tuple[Task, Result | Failed]]:
    """Yield each task with its result, or with why it failed, in the order in which they end.

    Tasks are taken from the iterable as workers become free, in its order, so it may be without
    end, and memory holds those under way alone.

    Args:
        at_once: tasks that a worker has at a time.
        tries: of a task, each on a fresh worker.
        beat: called every two seconds at the most while nothing ends.

    Raises:
        CaplabError: as soon as a worker raised one; a setting that is wrong is wrong for all.
    """
    source = iter(tasks)
    again: deque[tuple[Task, int]] = deque()
    under_way: dict[Future[Result], _Under[Task, Result]] = {}
    ended: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()

    def start(worker: Worker[Task, Result]) -> None:
        try:
            task, before = again.popleft() if again else (next(source), 0)
        except StopIteration:
            return
        try:
            future = worker.submit(task)
        except OSError as error:  # no process could be started
            future = Future()
            future.set_exception(error)
        under_way[future] = _Under(task, before + 1, worker)
        future.add_done_callback(ended.put)

    for _ in range(at_once):
        for worker in workers:
            start(worker)
    while under_way:
        try:
            # Never without end: a Ctrl-C that came while this thread let none through is only seen
            # when it wakes.
            future = ended.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            if beat is not None:
                beat()
            continue
        done = under_way.pop(future)
        error = future.exception()
        if error is None:
            start(done.worker)
            yield done.task, future.result()
            continue
        known = getattr(error, "cause", None) or error  # of Ray's, what the task raised
        if isinstance(known, CaplabError):
            raise known
        done.worker.replace(future)
        if done.tries < tries:
            again.append((done.task, done.tries))
        start(done.worker)
        if done.tries == tries:
            yield done.task, Failed(_in_words(error))


def _in_words(error: BaseException) -> str:
    """A death has no traceback that says anything."""
    if isinstance(error, BrokenProcessPool):
        return "its worker died (killed, out of memory, or a crash)"
    return in_words(error)
