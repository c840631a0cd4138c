"""One step of training: Muon for hidden matrices, AdamW for the rest, master weights, an EMA."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from curate.base.muon import MuonAdamW
from train.model import is_hidden_matrix
from train.settings import TrainSettings


class Optimizer:
    """All state of one optimisation: master weights, moments, averaged weights.

    Make it while the model is float32: those tensors become the master weights, and a model that
    is cast to bfloat16 afterwards gets its weights written back by `step`. Memory: four times the
    float32 weights at most.

    Args:
        is_muons: told a parameter's name and values; whether Muon steps it.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        is_muons: Callable[[str, Tensor], bool] = is_hidden_matrix,
    ) -> None:
        self.settings = settings
        self.parameters = dict(model.named_parameters())
        # While the model stays float32 the master weights share the parameters' memory.
        self.master = {name: nn.Parameter(p.data) for name, p in self.parameters.items()}
        self.ema = {name: weight.detach().clone() for name, weight in self.master.items()}
        self.moments = {name: torch.zeros_like(weight.data) for name, weight in self.master.items()}
        muon = settings.muon_learning_rate > 0
        hidden = {n: w for n, w in self.master.items() if muon and is_muons(n, w)}
        rest = {name: weight for name, weight in self.master.items() if name not in hidden}
        self.squares = {name: torch.zeros_like(weight.data) for name, weight in rest.items()}
        decays = [weight for weight in rest.values() if weight.ndim == 2]
        plain = [weight for weight in rest.values() if weight.ndim != 2]
        others: list[dict[str, Any]] = [{"params": decays}, {"params": plain, "weight_decay": 0.0}]
        self.stepped = MuonAdamW(
            hidden.values(),
            others,
            muon_rate=settings.muon_learning_rate,
            adamw_rate=settings.adamw_learning_rate,
            betas=settings.adamw_betas,
            weight_decay=settings.weight_decay,
            momentum=settings.muon_momentum,
        )
        self.rates = [group["lr"] for group in self.stepped.param_groups]
        for name, weight in self.master.items():
            own = {"step": torch.tensor(0.0)}
            if name in hidden:
                own["momentum_buffer"] = self.moments[name]
            else:
                own |= {"exp_avg": self.moments[name], "exp_avg_sq": self.squares[name]}
            self.stepped.state[weight] = own

    @torch.no_grad()
    def step(self, step: int, scale: float) -> float:
        """Apply the gradients of step number `step` (from 0), learning rates times `scale`.

        Returns:
            The global gradient norm before clipping. Where it is not finite, nothing changes.
        """
        gradients = [
            torch.zeros_like(self.master[name]) if p.grad is None else p.grad.float()
            for name, p in self.parameters.items()
        ]
        for weight, gradient in zip(self.master.values(), gradients, strict=True):
            weight.grad = gradient
        size = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if not math.isfinite(size):
            return size
        torch._foreach_mul_(gradients, min(1.0, self.settings.gradient_clip / (size + 1e-12)))
        self.stepped.computed_in = next(iter(self.parameters.values())).dtype
        for group, rate in zip(self.stepped.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        for name in self.squares:  # steps that were skipped count in the bias correction too
            self.stepped.state[self.master[name]]["step"].fill_(step)
        self.stepped.step()
        # A young average follows closely, so that it forgets the initial weights.
        decay = min(self.settings.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.ema.values()), list(self.master.values()), 1 - decay)
        self.write_back()
        return size

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the master weights into the model, where it computes in another precision."""
        for name, parameter in self.parameters.items():
            if parameter.data.data_ptr() != self.master[name].data_ptr():
                parameter.data.copy_(self.master[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a restart needs, float32, by name."""
        parts = {
            "weights": {name: weight.data for name, weight in self.master.items()},
            "ema": self.ema,
            "moments": self.moments,
            "squares": self.squares,
        }
        return {
            f"{part}/{name}": t for part, tensors in parts.items() for name, t in tensors.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore in place, whole or not at all.

        Raises:
            KeyError: the state has not exactly the tensors of `state_dict`, in their shapes.
        """
        own = self.state_dict()
        shapes = {name: tensor.shape for name, tensor in own.items()}
        given = {name: tensor.shape for name, tensor in state.items()}
        if shapes != given:
            differing = sorted({name for name, _ in shapes.items() ^ given.items()})
            raise KeyError(f"the checkpoint and the model differ in {differing[:3]}")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.write_back()


def learning_rate_scale(step: int, settings: TrainSettings) -> float:
    """Factor on learning rates at `step` (from 0): linear warm-up, plateau, linear cool-down."""
    warmup = settings.warmup_share * settings.steps
    cooldown = settings.cooldown_share * settings.steps
    rising = (step + 1) / warmup if warmup > 0 else 1.0
    falling = (settings.steps - step) / cooldown if cooldown > 0 else 1.0
    return min(1.0, rising, falling)
