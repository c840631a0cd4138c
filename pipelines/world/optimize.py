"""What lets small nets learn a world in minutes on one core: Muon, in the CPU's fastest precision.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) steps every hidden matrix by
an orthogonalised momentum; embeddings, first and last layers, gains and biases go to AdamW.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from train.optimizer import orthogonalised

MUON_MOMENTUM = 0.95


def training_dtype() -> torch.dtype:
    """bfloat16 where the CPU has AMX tiles (about 2.4 times faster), float32 where it would be
    emulated."""
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


class Trainer:
    """Steps a model through float32 copies of its parameters (its own ones, in float32).

    The learning rates warm up over 5% of the steps and cool down linearly over the last 70%.

    matrices: names of the matrices and convolutions that Muon takes; the rest is AdamW's.
    """

    def __init__(
        self,
        model: nn.Module,
        matrices: Iterable[str],
        steps: int,
        muon_rate: float = 0.02,
        adam_rate: float = 2e-3,
        clip_norm: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.steps, self.clip_norm, self.done = steps, clip_norm, 0
        self.muon_rate, self.adam_rate = muon_rate, adam_rate
        self.model, self.dtype = model, dtype or training_dtype()
        # Before the model is rounded, so that the masters start at the exact values.
        exact = {n: p.detach().float().clone() for n, p in model.named_parameters()}
        model.to(self.dtype)
        self.live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            n: p if p.dtype == torch.float32 else nn.Parameter(exact[n])
            for n, p in self.live.items()
        }
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        chosen = set(matrices)
        for name in sorted(chosen):
            if self.masters[name].ndim < 2:
                raise ValueError(f"Muon takes matrices and convolutions only, not {name}.")
            by_shape[self.masters[name].shape].append(self.masters[name])
        self.groups = list(by_shape.values())
        self.momenta = [[torch.zeros_like(p) for p in group] for group in self.groups]
        rest = [p for n, p in self.masters.items() if n not in chosen]
        self.adam = torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, loss: Tensor) -> None:
        """Backward, clip, one step, and the new values into the model."""
        loss.backward()  # type: ignore[no-untyped-call]
        for name, live in self.live.items():
            if self.masters[name] is not live:
                self.masters[name].grad = None if live.grad is None else live.grad.float()
                live.grad = None
        nn.utils.clip_grad_norm_(self.masters.values(), self.clip_norm)
        share = self.done / self.steps
        factor = min(1.0, (share + 1 / self.steps) / 0.05, (1 - share) / 0.7)
        self._muon(self.muon_rate * factor)
        self.adam.param_groups[0]["lr"] = self.adam_rate * factor
        self.adam.step()
        for master in self.masters.values():
            master.grad = None
        self._write_back()
        self.done += 1

    def finish(self) -> None:
        """Give the model its float32 values."""
        self.model.float()
        self._write_back()

    @torch.no_grad()
    def _muon(self, rate: float) -> None:
        for group, momenta in zip(self.groups, self.momenta, strict=True):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            torch._foreach_lerp_(momenta, gradients, 1 - MUON_MOMENTUM)
            update = torch.stack(torch._foreach_lerp(gradients, momenta, MUON_MOMENTUM))
            # A convolution is the matrix from a patch to its channels.
            flat = update.flatten(2)
            rows, columns = flat.shape[1:]
            update = orthogonalised(flat).reshape(update.shape)
            scale = rate * max(1.0, rows / columns) ** 0.5
            torch._foreach_add_(list(group), list(update.unbind()), alpha=-scale)

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, live in self.model.named_parameters():
            if name in self.masters and self.masters[name] is not live:
                live.copy_(self.masters[name])


def hidden_matrices(model: nn.Module, excluded: tuple[str, ...]) -> list[str]:
    """Names of a model's matrices, without those that contain one of the `excluded` words."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and not any(word in name for word in excluded)
    ]


def epochs(n: int, batch: int, generator: torch.Generator) -> Iterable[Tensor]:
    """Endless batches of indices into `n` rows, every row once before any comes twice."""
    if n < batch:
        raise ValueError(f"{n} rows do not fill a batch of {batch}.")
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n // batch * batch].view(-1, batch)
