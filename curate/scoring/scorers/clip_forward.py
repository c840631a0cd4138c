"""open_clip's forward, for what can reach the embedding alone.

open_clip pads every text to 77 tokens and runs every block over every position. Its modules and
weights run here, over less:

- Texts of nearly one length go together, cut to the longest of them: attention is causal and the
  embedding is read at the end of the text, so nothing behind it counts. An alt text has 15 tokens.
- The last block's projection and MLP run at the position that is read alone.
- Attention is torch's fused kernel. nn.MultiheadAttention takes another road in inference, which in
  bf16 on a CPU is five times as slow for texts.
- The running sum of the blocks stays in float32 on a CPU also where products are in bf16 or fp16;
  that moves embeddings less than rounding it after every block.

Embeddings equal open_clip's up to rounding. A model with other blocks or another pooling (ResNet,
timm, SigLIP, CoCa) takes open_clip's own road.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_GROUP = 8
"""Texts whose lengths are equal when rounded up to this many tokens go together."""


def picture_features(model: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Normalised pictures (B, 3, S, S), in the weights' dtype -> features (B, D)."""
    import torch

    visual = model.visual
    if not reads_class_token(visual):
        features: torch.Tensor = model.encode_image(pictures)
        return features
    x = visual._embeds(pictures)
    read = torch.zeros(len(x), dtype=torch.long, device=x.device)
    x = visual.ln_post(_run(visual.transformer.resblocks, x, read, causal=False))
    return x if visual.proj is None else x @ visual.proj


def text_features(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Padded tokens (B, L) int64 -> features (B, D)."""
    import torch

    if not reads_end_of_text(model):
        features: torch.Tensor = model.encode_text(tokens, normalize=False)
        return features
    is_end = tokens if model.text_pool_type == "argmax" else (tokens == model.text_eos_id).int()
    ends = is_end.argmax(dim=-1)
    groups = ends // _GROUP
    rows = [(groups == group).nonzero()[:, 0] for group in groups.unique()]
    parts = [_equal_texts(model, tokens[some], ends[some]) for some in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _equal_texts(model: Any, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    import torch

    tokens = tokens[:, : int(ends.max()) + 1]
    dtype = model.transformer.get_cast_dtype()
    places = model.positional_embedding[: tokens.shape[1]]
    x = model.token_embedding(tokens).to(dtype) + places.to(dtype)
    x = model.ln_final(_run(model.transformer.resblocks, x, ends, causal=True))
    projection = model.text_projection
    if projection is None:
        return torch.as_tensor(x)
    # open_clip has it as a layer, or as a bare matrix.
    is_layer = isinstance(projection, torch.nn.Linear)
    return torch.as_tensor(projection(x) if is_layer else x @ projection)


def _run(blocks: Sequence[Any], x: torch.Tensor, read: torch.Tensor, causal: bool) -> torch.Tensor:
    """Embedded sequences (B, L, D) -> (B, D) at the positions `read` (B,), in the dtype of x."""
    import torch

    dtype = x.dtype
    if x.device.type == "cpu":
        x = x.float()
    for block in blocks:
        mixed = _attention(block, block.ln_1(x).to(dtype), causal)
        if block is blocks[-1]:
            row = torch.arange(len(x), device=x.device)
            x, mixed = x[row, read], mixed[row, read]
        x = x + block.ls_1(block.attn.out_proj(mixed))
        x = x + block.ls_2(block.mlp(block.ln_2(x).to(dtype)))
    return x.to(dtype)


def _attention(block: Any, x: torch.Tensor, causal: bool) -> torch.Tensor:
    """Values (B, L, D) mixed by attention, before their projection."""
    from torch.nn import functional

    attention = block.attn
    count, length, width = x.shape
    joint = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    heads = joint.view(count, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind(0)
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return out.transpose(1, 2).reshape(count, length, width)


def reads_class_token(visual: Any) -> bool:
    """Whether this is open_clip's own ViT that reads its embedding at the class token."""
    from open_clip.transformer import VisionTransformer

    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and _are_plain(visual.transformer.resblocks)
    )


def reads_end_of_text(model: Any) -> bool:
    """Whether this is open_clip's own text tower, causal, read at the end of the text."""
    from open_clip import CLIP

    return (
        type(model) is CLIP
        and model.text_pool_type in ("argmax", "eos")
        and model.attn_mask is not None
        and _are_plain(model.transformer.resblocks)
    )


def _are_plain(blocks: Sequence[Any]) -> bool:
    from open_clip.transformer import ResidualAttentionBlock
    from torch import nn

    return bool(len(blocks)) and all(
        type(block) is ResidualAttentionBlock
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_bias is not None
        and block.attn.bias_k is None
        for block in blocks
    )
