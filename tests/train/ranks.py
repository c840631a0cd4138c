"""Several processes on one machine, as torchrun starts them; imported once and forked."""

import os
import socket
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Imported by the fork server, so that a process of a test does not take seconds to come up.
import diffusers.models.transformers.pixart_transformer_2d  # noqa: F401
import torch.multiprocessing
import transformers.models.t5.modeling_t5  # noqa: F401

from tests.train.tiny_run import loop
from train.distributed import Ranks
from train.run import train
from train.settings import TrainSettings


def run(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)` in `world` processes that find what torchrun sets."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.ranks"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors = context.SimpleQueue()
    processes = [
        context.Process(target=_process, args=(rank, world, port, errors, work, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    assert errors.empty(), errors.get()
    assert [process.exitcode for process in processes] == [0] * world


def _process(
    rank: int, world: int, port: int, errors: Any, work: Any, arguments: Sequence[Any]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        work(*arguments)
    except BaseException:
        errors.put(traceback.format_exc())
        raise


def loops(dataset: Any, runs: Sequence[tuple[Path, dict[str, Any]]]) -> None:
    """Several bare loops one after the other: (out, options of `tests.train.tiny_run.loop`)."""
    ranks = Ranks.join("cpu")
    for out, options in runs:
        loop(dataset, out, ranks=ranks, **options)
    ranks.leave()


def trains(dataset: Any, runs: Sequence[tuple[Path, TrainSettings]]) -> None:
    """Several whole runs one after the other in a group that stands: (out, settings)."""
    ranks = Ranks.join("cpu")
    for out, settings in runs:
        assert train(dataset, settings, out, "all").processes == int(os.environ["WORLD_SIZE"])
    ranks.leave()
