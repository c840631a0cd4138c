"""What a killed training continues from: one safetensors file, whole or not there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.base.files import atomic_path
from recaption.fit.optimizer import FitOptimizer


@dataclass
class Progress:
    """All that must survive a restart beside the tensors."""

    step: int = 0
    best_loss: float = float("inf")
    best_step: int = -1
    stale: int = 0
    """Measurements since the best one."""
    stopped: bool = False
    seconds: float = 0.0
    window_loss: float = 0.0
    """Sum of training losses since the last measurement."""
    window_steps: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    path: Path,
    modules: nn.ModuleDict,
    optimizer: FitOptimizer,
    best: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Write everything to one file."""
    from safetensors.torch import save_file

    tensors = {f"weights|{n}": t for n, t in modules.state_dict().items()}
    tensors |= {f"optimizer|{n}": t for n, t in optimizer.state().items()}
    tensors |= {f"best|{n}": t for n, t in best.items()}
    # Tied weights share memory, which the format refuses.
    own = {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(own, temporary, metadata={"progress": json.dumps(asdict(progress))})


def load_state(
    path: Path, modules: nn.ModuleDict, optimizer: FitOptimizer
) -> tuple[Progress, dict[str, Tensor]]:
    """Fill modules and optimiser from a file of `save_state`; the progress and the best weights."""
    from safetensors import safe_open

    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "best": {}}
    with safe_open(str(path), framework="pt") as opened:
        progress = Progress(**json.loads(opened.metadata()["progress"]))
        for full in opened.keys():  # noqa: SIM118
            part, _, name = full.partition("|")
            parts[part][name] = opened.get_tensor(full)
    with torch.no_grad():
        modules.load_state_dict(parts["weights"])
    optimizer.load_state(parts["optimizer"])
    return progress, parts["best"]
