"""One step of training: Muon for hidden matrices, AdamW for the rest, master weights, an EMA."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from curate.base.muon import MuonAdamW, gathered, local, own_share
from train.settings import TrainSettings


class Optimizer:
    """All state of one optimisation: master weights, moments, averaged weights.

    Make it while the weights are float32 and on their device: those tensors become the master
    weights, and a model that is cast to bfloat16 afterwards gets its weights written back by
    `step`. Parameters that fully_shard spread over processes (FSDP2) are their own master weights,
    and this process holds the state of its share alone. Memory in float32, beside the parameters:
    the average and one moment (Muon) or two (AdamW), and a master where the model is bfloat16.

    Nothing here waits for the device.

    Args:
        parameters: what is trained, by name; no others.
        is_muons: told a parameter's name and values; whether Muon steps it.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: TrainSettings,
        is_muons: Callable[[str, Tensor], bool],
    ) -> None:
        self.settings = settings
        self.parameters = dict(parameters)
        muon = settings.muon_learning_rate > 0
        hidden = {name for name, p in self.parameters.items() if muon and is_muons(name, p)}
        # What MuonAdamW steps. It gathers matrices itself; AdamW never needs more than the share.
        self._weights = {
            name: p
            if _is_spread(p) and name in hidden
            else nn.Parameter(local(p.detach()).float())  # the same memory, if that is float32
            for name, p in self.parameters.items()
        }
        with torch.no_grad():
            self.master = {name: local(weight).detach() for name, weight in self._weights.items()}
        self.ema = {name: weight.clone() for name, weight in self.master.items()}
        self.moments = {name: torch.zeros_like(weight) for name, weight in self.master.items()}
        rest = [name for name in self.master if name not in hidden]
        self.squares = {name: torch.zeros_like(self.master[name]) for name in rest}
        device = next(iter(self.master.values())).device
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        """Steps so far whose gradient was not finite, on the device."""

        decays = [self._weights[name] for name in rest if self.parameters[name].ndim == 2]
        plain = [self._weights[name] for name in rest if self.parameters[name].ndim != 2]
        others: list[dict[str, Any]] = [{"params": decays}, {"params": plain, "weight_decay": 0.0}]
        self._stepped = MuonAdamW(
            [weight for name, weight in self._weights.items() if name in hidden],
            others,
            muon_rate=settings.muon_learning_rate,
            adamw_rate=settings.adamw_learning_rate,
            betas=settings.adamw_betas,
            weight_decay=settings.weight_decay,
            momentum=settings.muon_momentum,
            iterations=settings.muon_steps,
            fused=True,
        )
        self._rates = [group["lr"] for group in self._stepped.param_groups]
        self._steps = torch.zeros(len(rest), device=device)
        for name in hidden:
            own = {"step": torch.tensor(0.0), "momentum_buffer": self.moments[name]}
            self._stepped.state[self._weights[name]] = own
        for step, name in zip(self._steps.unbind(), rest, strict=True):
            own = {"step": step, "exp_avg": self.moments[name], "exp_avg_sq": self.squares[name]}
            self._stepped.state[self._weights[name]] = own

    @torch.no_grad()
    def step(self, step: int, scale: float) -> Tensor:
        """Apply and drop the gradients of step number `step` (from 0), rates times `scale`.

        Returns:
            The global gradient norm before clipping, () on the device. Where it is not finite,
            no weight, moment or average changes, and `skipped` counts one more.
        """
        # Before the gradients are taken: a model that computes in bfloat16 has it by now.
        half = any(p.dtype == torch.bfloat16 for p in self.parameters.values())
        half |= self.settings.precision == "bf16"
        self._stepped.computed_in = torch.bfloat16 if half else torch.float32
        norm = self._take_gradients()
        found_inf = (~norm.isfinite()).float()
        self.skipped += found_inf.long()
        self._stepped.found_inf = found_inf
        self._stepped.grad_scale = ((norm + 1e-12) / self.settings.gradient_clip).clamp(min=1.0)
        for group, rate in zip(self._stepped.param_groups, self._rates, strict=True):
            group["lr"] = rate * scale
        self._steps.fill_(step)  # steps that were skipped count in the bias correction too
        self._stepped.step()
        for weight in self._weights.values():
            weight.grad = None
        # A young average follows closely, so that it forgets the initial weights.
        follow = (1 - min(self.settings.ema_decay, (1 + step) / (10 + step))) * (1 - found_inf)
        averages, masters = list(self.ema.values()), list(self.master.values())
        torch._foreach_lerp_(averages, masters, [follow] * len(masters))
        self.write_back()
        return norm

    def _take_gradients(self) -> Tensor:
        """Move gradients to what is stepped, in float32; their norm over all shares, ()."""
        whole: list[Tensor] = []
        shares: list[Tensor] = []
        for name, parameter in self.parameters.items():
            weight = self._weights[name]
            if parameter.grad is None:
                weight.grad = torch.zeros_like(weight)
            elif weight is not parameter:
                weight.grad = local(parameter.grad).float()
                parameter.grad = None
            kept = shares if _is_spread(parameter) else whole
            kept.append(local(weight.grad))  # type: ignore[arg-type]
        norms = [_norm(part) for part in (whole, shares) if part]
        if shares:
            squares = norms[-1].square()
            spread = next(filter(_is_spread, self.parameters.values()))
            for dimension, placement in enumerate(spread.placements):  # type: ignore[attr-defined]
                if placement.is_shard():
                    dist.all_reduce(squares, group=spread.device_mesh.get_group(dimension))  # type: ignore[attr-defined]
            norms[-1] = squares.sqrt()
        return norms[0] if len(norms) == 1 else torch.hypot(*norms)

    @torch.no_grad()
    def finite(self) -> Tensor:
        """(1,) float32 on the device: 1 where this rank's weights and averages all are finite.

        A finite gradient can still leave infinite weights; every later step is then skipped.
        """
        kept = [*self.master.values(), *self.ema.values()]
        return _norm([tensor for tensor in kept if tensor.numel()]).isfinite().float().view(1)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the master weights into the model, where it computes in another precision."""
        apart = [
            (local(parameter.detach()), self.master[name])
            for name, parameter in self.parameters.items()
            if local(parameter.detach()).data_ptr() != self.master[name].data_ptr()
        ]
        if apart:
            torch._foreach_copy_([p for p, _ in apart], [master for _, master in apart])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model's parameters hold the average; no second model is needed for it.

        Of weights that are spread, `fully_shard` must drop what it gathers after every forward
        (reshard_after_forward=True, on the root too), or the next step computes with the average.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, master in self.master.items():
            kept = master.clone()
            master.copy_(self.ema[name])
            self.ema[name].copy_(kept)
        self.write_back()

    def average(self) -> dict[str, Tensor]:
        """The averaged weights by name, float32 and whole; see `state_dict`."""
        return self._whole(self.ema)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a restart needs, float32 and whole, by name.

        These are the tensors themselves, not copies. Weights that are spread over processes are
        gathered one by one into the memory of the first process: call it in all, and write what
        the first one gets; the others get nothing.
        """
        return {
            f"{part}/{name}": tensor
            for part, tensors in self._parts().items()
            for name, tensor in self._whole(tensors).items()
        }

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        return {
            "weights": self.master,
            "ema": self.ema,
            "moments": self.moments,
            "squares": self.squares,
            "steps": {"skipped": self.skipped},
        }

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not any(map(_is_spread, self.parameters.values())):
            return dict(tensors)
        first = dist.get_rank() == 0
        whole = {}
        for name, share in tensors.items():
            parameter = self.parameters.get(name)
            tensor = share if parameter is None else gathered(share, parameter)
            if first:
                whole[name] = tensor.cpu()
        return whole

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore in place from whole tensors, on any number of processes; whole or not at all.

        Raises:
            KeyError: the state has not exactly the tensors of `state_dict`, in their shapes.
        """
        parts = self._parts()
        shapes = {
            f"{part}/{name}": self.parameters[name].shape if name in self.parameters else t.shape
            for part, tensors in parts.items()
            for name, t in tensors.items()
        }
        given = {name: tensor.shape for name, tensor in state.items()}
        if shapes != given:
            differing = sorted({name for name, _ in shapes.items() ^ given.items()})
            raise KeyError(f"the checkpoint and the model differ in {differing[:3]}")
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                whole = state[f"{part}/{name}"]
                parameter = self.parameters.get(name)
                tensor.copy_(whole if parameter is None else own_share(whole, parameter))
        self.write_back()


def _is_spread(parameter: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(parameter, "to_local")


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


def learning_rate_scale(step: int, settings: TrainSettings) -> float:
    """Factor on learning rates at `step` (from 0): linear warm-up, plateau, linear cool-down."""
    cooldown = settings.cooldown_share * settings.steps
    rising = (step + 1) / settings.warmup_steps if settings.warmup_steps > 0 else 1.0
    falling = (settings.steps - step) / cooldown if cooldown > 0 else 1.0
    return min(1.0, rising, falling)


def before_cooldown(settings: TrainSettings) -> int:
    """Steps done when the weights last do not depend on `steps`: a longer run goes on from there.

    The step of this number is the first whose rate the cool-down lowers; all of `steps` where
    there is no cool-down.
    """
    if settings.cooldown_share == 0:
        return settings.steps
    plateau = math.floor(settings.steps - settings.cooldown_share * settings.steps)
    return min(settings.steps, plateau + 1)
