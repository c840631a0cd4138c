"""What a task tells in another process reaches who listens in the driver's, with the task's result.

A warning of a worker then stands in a log file as any other, whichever runner it had. What a task
tells that dies or fails is lost; its reason is told by the driver.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic

from curate.base.progress import tell
from curate.base.telling.events import Level, emit, listen
from pipelines.runners.protocol import Result, Task
from pipelines.terminal.quiet import quiet_libraries

_Event = tuple[str, Level, dict[str, Any]]


@dataclass(frozen=True)
class Overheard(Generic[Result]):
    """A result, and the events that were told since the one before."""

    result: Result
    events: list[_Event]


class Ear:
    """Keeps what is told in a worker's process until a task ends; several may be under way."""

    def __init__(self) -> None:
        quiet_libraries()  # whose warnings are told as ours
        self._heard: list[_Event] = []
        listen(lambda *event: self._heard.append(event))

    def overhear(self, work: Callable[[Task], Result], task: Task) -> Overheard[Result]:
        """Do a task."""
        result = work(task)
        heard, self._heard = self._heard, []
        return Overheard(result, heard)


def told_again(future: Future[Overheard[Result]], aloud: bool = False) -> Future[Result]:
    """The future of the result alone; its events are told here before it is there.

    Args:
        aloud: what a worker said is printed, since its own stderr reaches nobody.
    """
    plain: Future[Result] = Future()

    def settle(done: Future[Overheard[Result]]) -> None:
        if done.cancelled():
            plain.cancel()
        elif (error := done.exception()) is not None:
            plain.set_exception(error)
        else:
            for event, level, values in done.result().events:
                if aloud and event == "told":
                    tell(values["text"], level)
                else:
                    emit(event, level, **values)
            plain.set_result(done.result().result)

    future.add_done_callback(settle)
    return plain
