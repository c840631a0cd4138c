"""What a captioner is trained on: nats a caption token, and CoCa's contrast in pre-training."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recaption.fit.batches import IGNORED, Batch
from recaption.fit.model import ContrastiveHeads


def forward(model: Any, batch: Batch) -> tuple[Tensor, Any]:
    """Logits (B, L, vocabulary) that predict the caption's tokens, and the model's whole output."""
    length = batch.wanted.shape[1]
    output = model(**batch.inputs, use_cache=False, logits_to_keep=length + 1)
    return output.logits[:, -length - 1 : -1], output


def caption_nats(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum over the caption's tokens of -log P."""
    return F.cross_entropy(
        logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def contrastive_loss(model: Any, heads: ContrastiveHeads, output: Any, wanted: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch (CLIP): every text against every picture.

    Texts are read by the language model alone and embedded at their end token, as CoCa embeds
    them at the class token behind the text.
    """
    known = wanted != IGNORED
    read = model.model.language_model(
        input_ids=wanted.masked_fill(~known, model.config.text_config.pad_token_id),
        attention_mask=known.long(),
        use_cache=False,
    ).last_hidden_state
    ends = known.sum(1) - 1
    text = F.normalize(
        heads.text(read[torch.arange(len(read), device=read.device), ends]).float(), dim=-1
    )
    tokens = output.image_hidden_states.reshape(len(wanted), -1, read.shape[-1])
    image = F.normalize(heads.image(tokens.mean(1)).float(), dim=-1)
    # CLIP caps the temperature's inverse at 100.
    similarity = heads.log_scale.clamp(max=math.log(100)).exp() * image @ text.T
    own = torch.arange(len(wanted), device=wanted.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
