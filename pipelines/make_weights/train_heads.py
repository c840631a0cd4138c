"""Trains the aesthetic and the NSFW head on the frozen image embeddings of the world's CLIP."""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

Output = Literal["score", "sigmoid"]

HIDDEN = 64


def train_head(
    embeddings: Tensor, target: Tensor, output: Output, seed: int, steps: int = 1500
) -> nn.Sequential:
    """A two-layer head: normalised embeddings (N, D) float32 to a score or a logit, target (N,).

    Squared error for a score, cross-entropy for a sigmoid. A few seconds on one core.
    """
    torch.manual_seed(seed)
    last = nn.Linear(HIDDEN, 1)
    head = nn.Sequential(nn.Linear(embeddings.shape[1], HIDDEN), nn.ReLU(), last)
    if output == "score":
        nn.init.constant_(last.bias, float(target.mean()))
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(target), (256,), generator=generator)
        predicted = head(embeddings[rows])[:, 0]
        if output == "score":
            loss = F.mse_loss(predicted, target[rows])
        else:
            loss = F.binary_cross_entropy_with_logits(predicted, target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


def save_head(head: nn.Sequential, path: Path, output: Output) -> None:
    """Write a head in the format that `weights` declares, fp16."""
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    state = {
        f"layers.{k}.{name}": getattr(layer, name).detach().half().contiguous()
        for k, layer in enumerate(linears)
        for name in ("weight", "bias")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, {"activation": "relu", "output": output})
