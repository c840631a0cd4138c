"""Muon for hidden matrices, AdamW for the rest, on float32 master weights, with an EMA."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from train.model import is_hidden_matrix
from train.settings import TrainSettings

# Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024,
# kellerjordan.github.io/posts/muon): p(x) = a x + b x^3 + c x^5 drives singular values to 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values about 1 (0.7 to 1.2), for a stack (K, n, m).

    Five Newton-Schulz iterations, n**2 (2 m + n) multiply-adds each for n <= m.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x if wide is matrices else x.mT


class Optimizer:
    """All state of one optimisation: master weights, moments, averaged weights.

    Parameters of one shape are stacked, so that Muon's iteration is one batched matmul a shape
    and AdamW a few array operations in all. Make it while the model is float32: those tensors
    become the master weights, and a model that is cast to bfloat16 afterwards gets its weights
    written back by `step`. Memory: four times the float32 weights at most.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.settings = settings
        self.parameters = dict(model.named_parameters())
        # While the model stays float32 the master weights are the parameters themselves.
        self.master = {name: parameter.data for name, parameter in self.parameters.items()}
        self.ema = {name: weight.clone() for name, weight in self.master.items()}
        self.moments = {name: torch.zeros_like(weight) for name, weight in self.master.items()}
        by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
        self.adamw_names: list[str] = []
        for name, parameter in self.parameters.items():
            if settings.muon_learning_rate > 0 and is_hidden_matrix(name, parameter):
                by_shape[tuple(parameter.shape)].append(name)
            else:
                self.adamw_names.append(name)
        self.muon_groups = list(by_shape.values())
        self.squares = {name: torch.zeros_like(self.master[name]) for name in self.adamw_names}

    @torch.no_grad()
    def step(self, step: int, scale: float) -> float:
        """Apply the gradients of step number `step` (from 0), learning rates times `scale`.

        Returns:
            The global gradient norm before clipping. Where it is not finite, nothing changes.
        """
        gradients = {
            name: torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.float()
            for name, p in self.parameters.items()
        }
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients.values()))))
        size = float(norm)
        if not torch.isfinite(norm):
            return size
        torch._foreach_mul_(
            list(gradients.values()), min(1.0, self.settings.gradient_clip / (size + 1e-12))
        )
        self._muon(gradients, scale)
        self._adamw(gradients, step, scale)
        names = list(self.master)
        # A young average follows closely, so that it forgets the initial weights.
        decay = min(self.settings.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            [self.ema[name] for name in names], [self.master[name] for name in names], 1 - decay
        )
        self.write_back()
        return size

    def _muon(self, gradients: dict[str, Tensor], scale: float) -> None:
        beta = self.settings.muon_momentum
        rate = self.settings.muon_learning_rate * scale
        for names in self.muon_groups:
            moments = [self.moments[name] for name in names]
            group = [gradients[name] for name in names]
            torch._foreach_lerp_(moments, group, 1 - beta)
            nesterov = torch.stack(torch._foreach_lerp(group, moments, beta))
            # The iteration tolerates the model's own precision; its result is only a direction.
            computed_in = self.parameters[names[0]].dtype
            update = orthogonalised(nesterov.to(computed_in)).float()
            rows, columns = update.shape[-2:]
            weights = [self.master[name] for name in names]
            if self.settings.weight_decay:
                torch._foreach_mul_(weights, 1 - rate * self.settings.weight_decay)
            step_size = rate * max(1.0, rows / columns) ** 0.5
            torch._foreach_add_(weights, list(update.unbind()), alpha=-step_size)

    def _adamw(self, gradients: dict[str, Tensor], step: int, scale: float) -> None:
        beta1, beta2 = self.settings.adamw_betas
        rate = self.settings.adamw_learning_rate * scale
        names = self.adamw_names
        group = [gradients[name] for name in names]
        moments = [self.moments[name] for name in names]
        squares = [self.squares[name] for name in names]
        weights = [self.master[name] for name in names]
        torch._foreach_lerp_(moments, group, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, group, group, value=1 - beta2)
        spread = torch._foreach_sqrt(squares)
        torch._foreach_div_(spread, (1 - beta2 ** (step + 1)) ** 0.5)
        torch._foreach_add_(spread, 1e-8)
        if self.settings.weight_decay:
            matrices = [weight for weight in weights if weight.ndim == 2]
            torch._foreach_mul_(matrices, 1 - rate * self.settings.weight_decay)
        torch._foreach_addcdiv_(weights, moments, spread, value=-rate / (1 - beta1 ** (step + 1)))

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the master weights into the model, where it computes in another precision."""
        for name, parameter in self.parameters.items():
            if parameter.data.data_ptr() != self.master[name].data_ptr():
                parameter.data.copy_(self.master[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a restart needs, float32, by name."""
        parts = {
            "weights": self.master,
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
