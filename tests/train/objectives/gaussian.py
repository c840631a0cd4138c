"""Pictures whose best denoiser is known: every number of them is normal, of one mean and spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from train.objectives import build_objective
from train.protocols import Objective
from train.settings import TrainSettings

MEAN, STD = 0.3, 0.5


def objective(**settings: Any) -> Objective:
    return build_objective(TrainSettings(model="tiny-test", **settings))


def best_x0(x_t: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """E[x0 | x_t] where x_t = a x0 + s noise and x0 is normal."""
    return MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (x_t - a * MEAN)


def drawn(
    scheduler: Any, network: Callable[[Tensor, Tensor], Tensor], steps: int, seed: int = 0
) -> Tensor:
    """Pictures (32, 3, 32, 32) as a pipeline draws them with a `network` of (input, timestep)."""
    generator = torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    x = torch.randn((32, 3, 32, 32), generator=generator)
    x = x * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        shown = x
        if hasattr(scheduler, "scale_model_input"):
            shown = scheduler.scale_model_input(x, timestep)
        output = network(shown, timestep.float())
        options = {"generator": generator} if "DDPM" in type(scheduler).__name__ else {}
        x = scheduler.step(output, timestep, x, return_dict=False, **options)[0]
    return x


def pictures(count: int = 5) -> tuple[Tensor, Tensor]:
    """Clean pictures and noise (count, 3, 4, 4), float64."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn((2, count, 3, 4, 4), generator=generator, dtype=torch.float64)
    return MEAN + STD * x0, noise


def numbers(count: int = 200_000) -> tuple[Tensor, Tensor]:
    """Standard normal (count,) and uniform (2, count) numbers."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=generator), torch.rand((2, count), generator=generator)
