"""One call in a worker: on Ray in a task of the cluster, locally in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from curate.base.errors import StageError
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.protocol import Runner

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def run_once(
    runner: Runner,
    function: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result:
    """What `function` returns; on Ray its memory is a worker's and not the driver's.

    Raises:
        CaplabError: as the function.
        StageError: it raised anything else, or its worker died.
    """
    with runner.workers(_Call(function), 1, here=True) as workers:
        ((_, result),) = hand_out(workers, [(arguments, named)], tries=1)
    if isinstance(result, Failed):
        raise StageError(f"{function.__name__} failed: {result.reason}.")
    return result


@dataclass(frozen=True)
class _Call:
    function: Callable[..., Any]

    def __call__(self, task: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        arguments, named = task
        return self.function(*arguments, **named)
