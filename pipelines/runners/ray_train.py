"""Several processes that train one model, placed by Ray Train; they find what torchrun gives."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from curate.base.errors import CaplabError, StageError
from pipelines.runners.hand_out import BEAT_SECONDS
from pipelines.terminal.failures import in_words


def run_torch_trainer(
    work: Callable[[Any], Any],
    task: Any,
    count: int,
    cpus: int,
    gpus: float,
    beat: Callable[[], object] | None,
) -> None:
    """Call `work(task)` in `count` workers of a TorchTrainer, joined to one process group.

    What they write they write themselves, so nothing of Ray Train's own storage is used.

    Raises:
        CaplabError: as the work.
        StageError: a worker raised anything else, or died.
    """
    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    with tempfile.TemporaryDirectory(prefix="caplab-ray-train-") as nothing, _beating(beat):
        trainer = TorchTrainer(
            _each,
            train_loop_config={"work": cloudpickle.dumps((work, task)), "cpus": cpus},
            scaling_config=ScalingConfig(
                num_workers=count,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
            ),
            run_config=RunConfig(storage_path=nothing),
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _told(error) from error


def _each(config: dict[str, Any]) -> None:
    """Inside of a worker, when its process group stands."""
    import torch
    from ray import cloudpickle

    torch.set_num_threads(config["cpus"])
    work, task = cloudpickle.loads(config["work"])
    work(task)


def _told(error: Exception) -> CaplabError:
    """The first of the workers' errors that a person can act on."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        if isinstance(failure, CaplabError):
            return failure
    for rank, failure in sorted(failures.items()):
        return StageError(f"process {rank}: {in_words(failure)}")
    return StageError(in_words(error))


@contextmanager
def _beating(beat: Callable[[], object] | None) -> Iterator[None]:
    """`fit` gives no control back before the end, so a thread looks for news meanwhile."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(BEAT_SECONDS):
            if beat is not None:
                beat()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()
