"""AdamW, and Muon for hidden matrices where it is asked for; state as named tensors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from recaption.fit.settings import FitSettings

_BETAS = (0.9, 0.98)  # CLIP's and most captioners'; 0.999 forgets too slowly for short runs


class FitOptimizer:
    """Steps every weight that has a gradient, after clipping their common norm.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) takes matrices and convolutions
    inside the model; embeddings, the output layer, gains and biases are AdamW's. Memory: AdamW
    holds two float32 numbers a weight, Muon one.
    """

    def __init__(self, modules: nn.ModuleDict, settings: FitSettings) -> None:
        self.clip = settings.gradient_clip
        self.named = {n: p for n, p in modules.named_parameters() if p.requires_grad}
        ends = _ends(modules)
        hidden = [
            name
            for name, p in self.named.items()
            if settings.uses_muon and p.ndim >= 2 and id(p) not in ends
        ]
        # A convolution over patches is the matrix from a patch to its channels; the flat view
        # shares its memory, so that stepping it steps the weight.
        self.flat = {name: nn.Parameter(self.named[name].data.flatten(1)) for name in hidden}
        rest = {name: p for name, p in self.named.items() if name not in self.flat}
        matrices = [p for p in rest.values() if p.ndim >= 2]
        others = [p for p in rest.values() if p.ndim < 2]
        self.parts: list[tuple[torch.optim.Optimizer, dict[str, nn.Parameter], float]] = []
        adamw = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.rate,
            betas=_BETAS,
        )
        self.parts.append((adamw, rest, settings.rate))
        if self.flat:
            muon = torch.optim.Muon(
                list(self.flat.values()),
                lr=settings.muon_learning_rate,
                weight_decay=settings.weight_decay,
            )
            self.parts.append((muon, self.flat, settings.muon_learning_rate))

    def step(self, scale: float) -> float:
        """One step at `scale` times the peak rates.

        Returns:
            The gradients' norm before clipping; where it is not finite, nothing changes.
        """
        norm = float(nn.utils.clip_grad_norm_(self.named.values(), self.clip))
        if math.isfinite(norm):
            for name, flat in self.flat.items():
                gradient = self.named[name].grad
                flat.grad = None if gradient is None else gradient.flatten(1)
            for optimizer, _, rate in self.parts:
                for group in optimizer.param_groups:
                    group["lr"] = rate * scale
                optimizer.step()
        for parameter in self.named.values():
            parameter.grad = None
        return norm

    def state(self) -> dict[str, Tensor]:
        """All moments and counters, named WEIGHT/NAME."""
        return {
            f"{name}/{key}": torch.as_tensor(value)
            for optimizer, named, _ in self.parts
            for name, parameter in named.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take `state` over."""
        for optimizer, named, _ in self.parts:
            for name, parameter in named.items():
                own: dict[str, Any] = {}
                for full, tensor in state.items():
                    weight, _, key = full.rpartition("/")
                    if weight == name:
                        own[key] = tensor if key == "step" else tensor.to(parameter.device)
                if own:
                    optimizer.state[parameter] = own


def rate_scale(step: int, steps: int, warmup_share: float) -> float:
    """Factor on the rates at `step` (from 0): a linear rise, then half a cosine to 0."""
    warmup = warmup_share * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _ends(modules: nn.ModuleDict) -> set[int]:
    """Embeddings and output layers, by identity."""
    found = {id(module.weight) for module in modules.modules() if isinstance(module, nn.Embedding)}
    for module in modules.values():
        output = getattr(module, "get_output_embeddings", lambda: None)()
        if output is not None:
            found.add(id(output.weight))
        else:
            found.update(id(p) for p in module.parameters())
    return found
