"""Which runner a command gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipelines.runners.local import Local, gpus_here
from pipelines.runners.protocol import Runner
from pipelines.runners.settings import RunnerSettings


@contextmanager
def open_runner(settings: RunnerSettings) -> Iterator[Runner]:
    """The runner of a command; nothing is started before it is asked for workers.

    Raises:
        StageError: Ray broke down inside of the block.
    """
    address = settings.ray_address or os.environ.get("RAY_ADDRESS")
    auto = bool(address) or ray_runs_here() or gpus_here() > 1
    if settings.runner == "local" or (settings.runner == "auto" and not auto):
        yield Local()
        return
    from pipelines.runners.on_ray import OnRay

    with ExitStack() as ended:
        yield OnRay(ended, address)


def ray_runs_here() -> bool:
    """Whether this process has started or joined a Ray. Imports none."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
