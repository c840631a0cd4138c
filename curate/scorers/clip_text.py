"""CLIP's text tower without the padding.

CLIP pads every text to 77 tokens and computes all of them, though its attention is causal and the
embedding is read at the end-of-text token: nothing behind that token can reach it. An alt text has
about 15 tokens, so leaving the padding out saves three quarters of the text tower, which for small
models costs more than the picture. The embeddings are the same up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_ROUND_TO = 8
"""Lengths are rounded up to this, so that few different shapes occur."""


def truncated_tokens(tokenize: Any, text: str) -> int:
    """How many tokens of `text` one of open_clip's tokenizers leaves out to fit the context."""
    room = int(tokenize.context_length)
    # A token stands for at least one byte, so most texts need no second look.
    if len(text.encode("utf-8", "replace")) + 2 <= room // 2:
        return 0
    clean = getattr(tokenize, "clean_fn", None)
    if hasattr(tokenize, "tokenizer"):  # a tokenizer of transformers, with its own special tokens
        ids = tokenize.tokenizer(clean(text) if clean else text).input_ids
        return max(0, len(ids) - room)
    return max(0, len(tokenize.encode(text)) + 2 - room)  # start and end of text


def encode_text(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Text features (B, D), not normalised, of an open_clip model for tokens (B, L) int64.

    Models with another text tower (CustomTextCLIP, CoCa), without a causal mask, or that read the
    embedding elsewhere, take open_clip's own road.
    """
    import torch
    from open_clip import CLIP
    from open_clip.transformer import text_global_pool

    reads_end = getattr(model, "text_pool_type", None) in ("argmax", "eos")
    if type(model) is not CLIP or not reads_end or model.attn_mask is None:
        features: torch.Tensor = model.encode_text(tokens, normalize=False)
        return features
    if model.text_pool_type == "argmax":
        ends = tokens.argmax(dim=-1)
    else:
        ends = (tokens == model.text_eos_id).int().argmax(dim=-1)
    length = min(-(-(int(ends.max()) + 1) // _ROUND_TO) * _ROUND_TO, tokens.shape[1])
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    x = text_global_pool(
        x, tokens, model.text_pool_type, eos_token_id=getattr(model, "text_eos_id", None)
    )
    if model.text_projection is None:
        return x
    if isinstance(model.text_projection, torch.nn.Linear):
        return torch.as_tensor(model.text_projection(x))
    return torch.as_tensor(x @ model.text_projection)
