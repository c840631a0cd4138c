"""Several processes, one run: the same function for torchrun, Ray Train and a single process.

A launcher starts the processes and sets RANK, WORLD_SIZE and LOCAL_RANK; `Ranks.join` reads them,
starts torch.distributed if the launcher has not, and all that the loop asks for is below. With one
process nothing of torch.distributed is touched.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curate.base.errors import ConfigError

if TYPE_CHECKING:
    from train.model import TextToImage
    from train.model_settings import ModelConfig
    from train.settings import TrainSettings

# A rank waits as long while the first one indexes a dataset or writes a pipeline.
_PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """Its number on its machine, and so of its GPU."""
    ours: bool = False
    """Whether `join` started torch.distributed, and `leave` ends it."""

    @staticmethod
    def join(device: str) -> Ranks:
        """Take part in what the launcher started.

        Args:
            device: "cpu" or "cuda..."; decides between gloo and nccl.

        Raises:
            ConfigError: the launcher's variables are no numbers.
        """
        try:
            _, world, local = (
                int(os.environ.get(name, default))
                for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
            )
        except ValueError as error:
            raise ConfigError(
                f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}."
            ) from error
        if world == 1:
            return ALONE
        from torch import distributed

        if device.startswith("cuda"):
            torch.cuda.set_device(local % torch.cuda.device_count())
        ours = not distributed.is_initialized()
        if ours:
            backend = "nccl" if device.startswith("cuda") else "gloo"
            # gloo carries what is on the CPU (checkpoints of a sharded model) on a GPU as well.
            distributed.init_process_group(
                f"cpu:gloo,cuda:{backend}" if backend == "nccl" else backend, timeout=_PATIENCE
            )
        return Ranks(distributed.get_rank(), distributed.get_world_size(), local, ours)

    def leave(self) -> None:
        """End what `join` started.

        A sharded model is a ring of references that holds the group, and with it gloo's threads.
        One of those that lets go of a tensor while the interpreter is being taken down aborts the
        process, so the ring is collected first: then the group's end waits for its threads.
        """
        if self.ours:
            from torch import distributed

            gc.collect()
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def device(self, device: str) -> torch.device:
        """This rank's own GPU, where there are several processes."""
        if self.world > 1 and device.startswith("cuda"):
            return torch.device("cuda", self.local % torch.cuda.device_count())
        return torch.device(device)

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            from torch import distributed

            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The block runs on the first rank, then on the others, which find what it wrote."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """`values` averaged over the ranks."""
        if self.world > 1:
            from torch import distributed

            distributed.all_reduce(values)
            values /= self.world
        return values

    def share(self, settings: TrainSettings) -> int:
        """Pictures of one part of a step on this rank.

        Raises:
            ConfigError: the batch does not divide.
        """
        parts = self.world * settings.gradient_accumulation_steps
        if settings.batch_size % parts:
            raise ConfigError(
                f"batch_size = {settings.batch_size} does not divide into {self.world} processes "
                f"times gradient_accumulation_steps = {settings.gradient_accumulation_steps}."
            )
        return settings.batch_size // parts


ALONE = Ranks()


def shard(model: TextToImage, dtype: torch.dtype) -> None:
    """FSDP2: every rank keeps a share of each weight, float32, and computes in `dtype`.

    Blocks are gathered one by one as they are needed. Before the optimiser is made, so that its
    state is shared out as well. The frozen text encoder stays whole on every rank.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # The loop casts the picture; a timestep of 0..1000 would not survive bfloat16.
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for block in model.backbone.blocks():
        fully_shard(block, mp_policy=policy)
    for part in model.trained_parts():
        # Else what was gathered to look at the averages would stay for the next step.
        fully_shard(part, mp_policy=policy, reshard_after_forward=True)


def wrapped(model: TextToImage, config: ModelConfig, ranks: Ranks, strategy: str) -> nn.Module:
    """What the loop calls in training: `model`, or DistributedDataParallel around it."""
    if ranks.world == 1 or strategy == "fsdp":
        return model
    from torch.nn.parallel import DistributedDataParallel

    # torch 2.15 has another word for it.
    arguments = signature(DistributedDataParallel.__init__).parameters
    new = "forward_sync_buffers" in arguments
    options: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": False}
    # Layers above the hidden state that is read, and tokens for padding, are not in every step.
    some_idle = any(own.trainable and own.layer != -1 for own in config.text) or any(
        name.endswith("pad_token") for name in model.trained_parameters()
    )
    return DistributedDataParallel(model, find_unused_parameters=some_idle, **options)


@contextmanager
def gradients_meet(module: nn.Module, ranks: Ranks, strategy: str, last: bool) -> Iterator[None]:
    """Ranks add up their gradients in the `last` part of a step alone."""
    if ranks.world > 1 and strategy == "fsdp":
        for part in module.trained_parts():  # type: ignore[operator]
            part.set_requires_gradient_sync(last)
        yield
    elif ranks.world > 1 and not last:
        with module.no_sync():  # type: ignore[operator]
            yield
    else:
        yield
