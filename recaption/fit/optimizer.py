"""Which weights of a captioner Muon steps, and which AdamW."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from curate.base.muon import MuonAdamW
from recaption.fit.model import ContrastiveHeads
from recaption.fit.settings import FitSettings

_BETAS = (0.9, 0.98)  # CLIP's and most captioners'; 0.999 forgets too slowly for short runs


def optimizer_of(model: nn.Module, settings: FitSettings, precision: torch.dtype) -> MuonAdamW:
    """AdamW, and Muon for matrices and convolutions inside the model where it is asked for.

    Embeddings, the output layer, what is no part of the captioner, gains and biases are AdamW's.
    """
    ends = [m for m in model.modules() if isinstance(m, nn.Embedding | ContrastiveHeads)]
    ends.append(model.get_output_embeddings())  # type: ignore[operator]
    apart = {id(weight) for module in ends for weight in module.parameters()}
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in learnt if weight.ndim >= 2]
    hidden = [w for w in matrices if settings.uses_muon and id(w) not in apart]
    muons = {id(weight) for weight in hidden}
    others: list[dict[str, Any]] = [
        {"params": [weight for weight in matrices if id(weight) not in muons]},
        {"params": [weight for weight in learnt if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return MuonAdamW(
        hidden,
        others,
        muon_rate=settings.muon_learning_rate,
        adamw_rate=settings.rate,
        betas=_BETAS,
        weight_decay=settings.weight_decay,
        computed_in=precision,
    )
