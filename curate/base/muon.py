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
STACKED = 2**26
"""Weights that are orthogonalised at once, at most: 256 MiB of float32, a few times over."""


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose matrices may be Muon's; state and param_groups are as every optimizer has them.

    Muon's matrices hold one number a weight (`momentum_buffer`), AdamW's weights two. A
    convolution is the matrix from a patch to its channels. A matrix may be a DTensor, of which
    this process holds a share: it is gathered for the iteration alone.

    grad_scale and found_inf, 0-d float32 tensors on the weights' device, are attributes as fused
    AdamW knows them: gradients are divided by the one; where the other is 1, a step changes
    nothing. Neither is waited for. They need `fused`.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

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
        fused: bool = False,
        iterations: int = 5,
    ) -> None:
        """
        Args:
            others: AdamW's weights, in groups with options of their own.
            computed_in: precision of Muon's iteration, whose result is only a direction: what
                the model computes in.
            fused: AdamW as one kernel, for weights in float32.
            iterations: of Newton-Schulz, by Muon.
        """
        super().__init__(
            others,
            lr=adamw_rate,
            betas=betas,
            weight_decay=weight_decay,
            foreach=not fused,
            fused=fused,
        )
        if listed := list(matrices):
            self.add_param_group({"params": listed, "lr": muon_rate, "momentum": momentum})
        self.computed_in = computed_in
        self.iterations = iterations

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
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape[weight.shape].append(weight)  # of the whole matrix: alike on all ranks
                if not self.state[weight]:
                    # AdamW asks every weight for its step when a state is loaded.
                    zeros = torch.zeros_like(local(weight))
                    self.state[weight] = {"step": torch.tensor(0.0), "momentum_buffer": zeros}
        for shape, weights in by_shape.items():
            at_once = max(1, STACKED // shape.numel())
            for start in range(0, len(weights), at_once):
                self._step_stack(group, weights[start : start + at_once])

    def _step_stack(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        rate, beta, decay = group["lr"], group["momentum"], group["weight_decay"]
        gradients = torch.stack([local(w.grad) for w in weights if w.grad is not None])
        momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
        kept: Tensor | float = beta
        if self.grad_scale is not None:
            gradients.div_(self.grad_scale)
        if self.found_inf is not None:
            # Without a usable gradient the momentum stays, and so does the weight below.
            gradients.masked_fill_(self.found_inf.bool(), 0.0)
            kept = beta + (1 - beta) * self.found_inf
            rate = rate * (1 - self.found_inf)
        torch._foreach_mul_(momenta, kept)
        torch._foreach_add_(momenta, list(gradients.unbind()), alpha=1 - beta)
        nesterov = gradients.lerp_(torch.stack(momenta), beta).to(self.computed_in)
        matrices = gathered(nesterov, weights[0]).flatten(2)
        update = orthogonalised(matrices, self.iterations).view(len(weights), *weights[0].shape)
        rows, columns = matrices.shape[-2:]
        update = own_share(update, weights[0]).float()
        shares = [local(weight) for weight in weights]
        if decay:
            torch._foreach_mul_(shares, 1 - rate * decay)
        update.mul_(-rate * max(1.0, rows / columns) ** 0.5)
        torch._foreach_add_(shares, list(update.unbind()))


def local(tensor: Tensor) -> Tensor:
    """This process's share of a DTensor, in the same memory; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def gathered(share: Tensor, like: Any) -> Tensor:
    """The whole tensor, of which every process holds a share as it does of the DTensor `like`.

    All processes must call it. Either may have dimensions of its own in front: a stack (K, ...)
    of shares gives a stack of whole tensors. Where `like` is no DTensor, `share` is the whole.
    """
    if not hasattr(like, "to_local"):
        return share
    from torch.distributed.tensor import DTensor

    shape = torch.Size([*share.shape[: share.ndim - like.ndim], *like.shape])
    strides = torch.empty(shape, device="meta").stride()
    placements = _behind(share.ndim - like.ndim, like)
    return DTensor.from_local(
        share, like.device_mesh, placements, run_check=False, shape=shape, stride=strides
    ).full_tensor()


def own_share(whole: Tensor, like: Any) -> Tensor:
    """The reverse of `gathered`, without any exchange."""
    if not hasattr(like, "to_local"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    placements = _behind(whole.ndim - like.ndim, like)
    return distribute_tensor(whole, like.device_mesh, placements, src_data_rank=None).to_local()


def _behind(dimensions: int, like: Any) -> list[Any]:
    """The placements of a DTensor when there are more dimensions in front."""
    from torch.distributed.tensor import Shard

    return [Shard(p.dim + dimensions) if isinstance(p, Shard) else p for p in like.placements]


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest matrices with singular values about 1 (0.7 to 1.2), for a stack (K, n, m).

    After five Newton-Schulz iterations, n**2 (2 m + n) multiply-adds each for n <= m; fewer leave
    small singular values smaller.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x if wide is matrices else x.mT
