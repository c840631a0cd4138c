"""One process of several that train one small network spread over them (FSDP2, gloo)."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from train.distributed import Ranks
from train.optimizer import Optimizer
from train.settings import TrainSettings

SETTINGS = TrainSettings(
    model="world-small",
    precision="fp32",
    muon_learning_rate=0.01,
    adamw_learning_rate=2e-3,
    weight_decay=0.05,
    ema_decay=0.98,
)
STEPS, KILLED, BAD = 6, 3, 4


def network() -> nn.Module:
    """Matrices whose shapes differ while the first process' shares do not; odd ones and single."""
    torch.manual_seed(0)
    sides = [6, 10, 10, 9, 10, 1]
    layers: list[nn.Module] = []
    for inward, outward in pairwise(sides):
        layers += [nn.Linear(inward, outward), nn.GELU()]
    return nn.Sequential(*layers)


def is_hidden(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and not name.startswith(("0.", "8."))


def train(
    model: nn.Module, start: int, stop: int, state: dict[str, Tensor] | None
) -> tuple[Optimizer, list[float]]:
    """Steps [start, stop), of which BAD has no finite gradient; the norms."""
    optimizer = Optimizer(dict(model.named_parameters()), SETTINGS, is_hidden)
    if state is not None:
        optimizer.load_state_dict(state)
    norms = []
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for step in range(start, stop):
        x = torch.randn((8, 6), generator=torch.Generator().manual_seed(step))
        if step == BAD:
            x[0] = torch.inf
        loss = 10 * model(x[rank * 8 // world : (rank + 1) * 8 // world]).square().mean()
        loss.backward()
        norms.append(float(optimizer.step(step, 1.0)))
    return optimizer, norms


def spread_network() -> nn.Module:
    """The network with every layer's weights spread over all processes."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = network()
    for layer in model:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(folder: Path) -> None:
    """Train to KILLED, and from what one process left in whole.safetensors to STEPS."""
    ranks = Ranks.join("cpu")
    _train_twice(folder)
    ranks.leave()


def _train_twice(folder: Path) -> None:
    for name, start, stop in (("first", 0, KILLED), ("second", KILLED, STEPS)):
        stored = load_file(folder / "whole.safetensors") if start else None
        optimizer, norms = train(spread_network(), start, stop, stored)
        state, average = optimizer.state_dict(), optimizer.average()
        if dist.get_rank() == 0:
            assert all(tensor.equal(state[f"ema/{key}"]) for key, tensor in average.items())
            save_file(state, folder / f"{name}.safetensors", {"norms": json.dumps(norms)})
        else:
            assert not state
            assert not average


if __name__ == "__main__":
    main(Path(sys.argv[1]))
