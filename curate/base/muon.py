"""Muon for matrices and AdamW for the rest as one optimizer: what every trainer here steps with.

torch.optim.Muon is the same step (Jordan et al. 2024, kellerjordan.github.io/posts/muon), but it
iterates in bfloat16 whatever the machine, one matrix after the other. A CPU without bfloat16
arithmetic emulates that: a step of the demo's model then takes 1.0 s in place of 0.06 s (AVX2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024):
# p(x) = a x + b x^3 + c x^5 drives singular values to 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose matrices may be Muon's; state and param_groups are as every optimizer has them.

    Muon's matrices hold one number a weight (`momentum_buffer`), AdamW's weights two. A
    convolution is the matrix from a patch to its channels.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: list[dict[str, Any]],
        *,
        muon_rate: float,
        adamw_rate: float,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        computed_in: torch.dtype = torch.float32,
    ) -> None:
        """
        Args:
            others: AdamW's weights, in groups with options of their own.
            computed_in: precision of Muon's iteration, whose result is only a direction: what
                the model computes in.
        """
        super().__init__(
            others, lr=adamw_rate, betas=betas, weight_decay=weight_decay, foreach=True
        )
        if listed := list(matrices):
            self.add_param_group({"params": listed, "lr": muon_rate, "momentum": momentum})
        self.computed_in = computed_in

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every weight that has a gradient; Muon's weights have none afterwards."""
        for group in self.param_groups:
            if "momentum" in group:
                self._step_matrices(group)
                for weight in group["params"]:
                    weight.grad = None  # AdamW passes over what has none
        super().step(closure)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """Matrices of one shape are stacked, so that the iteration is one batched matmul each."""
        rate, beta = group["lr"], group["momentum"]
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape[weight.shape].append(weight)
                if not self.state[weight]:
                    # AdamW asks every weight for its step when a state is loaded.
                    zeros = torch.zeros_like(weight)
                    self.state[weight] = {"step": torch.tensor(0.0), "momentum_buffer": zeros}
        for weights in by_shape.values():
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
            torch._foreach_lerp_(momenta, gradients, 1 - beta)
            nesterov = torch.stack(torch._foreach_lerp(gradients, momenta, beta)).flatten(2)
            update = orthogonalised(nesterov.to(self.computed_in)).float()
            rows, columns = update.shape[-2:]
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
            step_size = rate * max(1.0, rows / columns) ** 0.5
            updates = update.reshape(len(weights), *weights[0].shape).unbind()
            torch._foreach_add_(weights, list(updates), alpha=-step_size)


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
