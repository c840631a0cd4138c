"""The one loop that hands out work: few tasks in flight, two tries each, failures as data.

A worker that died is replaced. One that hangs is noticed by whoever watches over the tasks, and
ended; what is tried in the place of a task that was lost is for the watch to say.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, Protocol

from curate.base.errors import CaplabError
from pipelines.runners.protocol import Result, Task, Worker
from pipelines.terminal.failures import in_words

# A task whose worker raised or died is tried once more on a fresh worker: a lost machine or a
# passing fault should not stop a run, a fault that repeats should be seen.
TRIES = 2
BEAT_SECONDS = 2.0
# What Ray raises where an actor is no more.
_DEATHS = ("ActorDiedError", "RayActorError", "ActorUnavailableError", "WorkerCrashedError")


@dataclass(frozen=True)
class Failed:
    """Why a task failed as often as it was tried."""

    reason: str


class Watch(Protocol[Task]):
    """Looks after tasks that are under way, and decides about those whose worker is lost."""

    beat_seconds: float

    def stuck(self, task: Task, /) -> str | None:
        """Why the task's worker is to be ended; None where it works."""

    def instead(self, task: Task, reason: str, /) -> list[Task] | None:
        """What is tried in the place of a task whose worker died, or was ended for `reason`.

        None where it is to be tried as often as any other; nothing where it is settled.
        """


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
    watch: Watch[Task] | None = None,
) -> Iterator[tuple[Task, Result | Failed]]:
    """Yield each task with its result, or with why it failed, in the order in which they end.

    Tasks are taken from the iterable as workers become free, in its order, so it may be without
    end, and memory holds those under way alone.

    Args:
        at_once: tasks that a worker has at a time.
        tries: of a task, each on a fresh worker.
        beat: called every two seconds or so.
        watch: see Watch; a task that it settles is not yielded.

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
    every = min(BEAT_SECONDS, watch.beat_seconds) if watch else BEAT_SECONDS
    next_beat = time.monotonic() + every
    ended_for: dict[Future[Result], str] = {}
    while under_way:
        try:
            # Never without end: a Ctrl-C that came while this thread let none through is only seen
            # when it wakes.
            future = ended.get(timeout=max(0.0, next_beat - time.monotonic()))
        except queue.Empty:
            next_beat = time.monotonic() + every
            if beat is not None:
                beat()
            if watch is not None:
                for future, under in list(under_way.items()):
                    if future not in ended_for and (reason := watch.stuck(under.task)):
                        ended_for[future] = reason
                        under.worker.replace(future)
            continue
        done, reason = under_way.pop(future), ended_for.pop(future, None)
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            start(done.worker)
            yield done.task, future.result()
            continue
        known = getattr(error, "cause", None) or error  # of Ray's, what the task raised
        if isinstance(known, CaplabError):
            raise known
        done.worker.replace(future)
        lost = reason is not None or _died(error)
        instead = watch.instead(done.task, reason or _in_words(error)) if watch and lost else None
        if instead is not None:
            again.extend((task, 0) for task in instead)
        elif done.tries < tries:
            again.append((done.task, done.tries))
        start(done.worker)
        for worker in workers if again else ():
            if sum(under.worker is worker for under in under_way.values()) < at_once:
                start(worker)
        if instead is None and done.tries == tries:
            yield done.task, Failed(reason or _in_words(error))


def _died(error: BaseException) -> bool:
    """Whether a worker is no more, and whatever it held with it."""
    named = type(error).__name__ in _DEATHS
    return named or isinstance(error, BrokenProcessPool | CancelledError)


def _in_words(error: BaseException) -> str:
    """A death has no traceback that says anything."""
    if _died(error):
        return "its worker died (killed, out of memory, or a crash)"
    return in_words(error)
