"""What a runner and its workers have to be: the small protocol behind which Ray and local stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_Task = TypeVar("_Task", contravariant=True)
_Result = TypeVar("_Result", covariant=True)


class Work(Protocol[_Task, _Result]):
    """What a worker does with each task. Travels by pickle, and opens what is dear at its first."""

    def __call__(self, task: _Task, /) -> _Result: ...


class Worker(Protocol[_Task, Result]):
    """One worker, which holds one copy of the work from its first task on."""

    def submit(self, task: _Task, /) -> Future[Result]:
        """Hand over a task. Its error, or its worker's death, is the future's exception.

        Raises:
            OSError: no process could be started for it.
        """

    def replace(self, failed: Future[Result], /) -> None:
        """A task failed: whoever had it ends, and the next task finds a fresh copy."""


class Runner(Protocol):
    """Gives workers to whoever has tasks."""

    def machines(self) -> list[int]:
        """CPUs of each machine."""

    def gpus(self) -> int:
        """GPUs of all machines."""

    def together(
        self,
        work: Work[Task, Result],
        task: Task,
        count: int,
        *,
        cpus: int = 1,
        gpus: float = 0.0,
        beat: Callable[[], object] | None = None,
    ) -> None:
        """Do one task in `count` processes at once, which torch.distributed can join to a group.

        Each finds its place as under torchrun: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
        MASTER_ADDR and MASTER_PORT stand in its environment. As soon as one fails, all end.

        Args:
            cpus, gpus: of each process.
            beat: called every two seconds or so meanwhile.

        Raises:
            CaplabError: as the work.
            StageError: a process raised anything else, or died.
        """

    def workers(
        self,
        work: Work[Task, Result],
        count: int,
        *,
        cpus: int = 1,
        gpus: float = 0.0,
        at_once: int = 1,
        here: bool = False,
    ) -> AbstractContextManager[Sequence[Worker[Task, Result]]]:
        """`count` workers, which end with the block, also those that still work.

        Args:
            cpus: of each, also its OMP_NUM_THREADS.
            gpus: of each; only Ray shares them out.
            at_once: tasks that a worker takes side by side, if it can; others wait for their turn.
            here: this process may be the worker, where one is wanted and it is local. Its death
                then ends the command, and the work shares its objects with the caller.
        """
