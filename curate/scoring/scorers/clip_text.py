"""CLIP's text tower without the padding.

CLIP pads every text to 77 tokens and computes all of them, though its attention is causal and the
embedding is read at the end-of-text token: nothing behind that token can reach it. An alt text has
about 15 tokens, so leaving the padding out saves three quarters of the text tower, which for small
models costs more than the picture. The embeddings are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from curate.scoring.scorers.clip_tower import Tower, pack_texts

if TYPE_CHECKING:
    import torch


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


def tokens_of(tokenize: Any, texts: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
    """Tokens (B, L) int64, padded, of one of open_clip's tokenizers; and `truncated_tokens`.

    open_clip's own tokenizer is slow Python, so it reads each text once for both.
    """
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    if type(tokenize) is not SimpleTokenizer or tokenize.reduction_fn is not None:
        return tokenize(texts), [truncated_tokens(tokenize, text) for text in texts]
    room = int(tokenize.context_length)
    tokens = torch.zeros(len(texts), room, dtype=torch.long)
    left_out = []
    for row, text in enumerate(texts):
        ids = tokenize.encode(text)
        left_out.append(max(0, len(ids) + 2 - room))
        kept = [tokenize.sot_token_id, *ids[: room - 2], tokenize.eot_token_id]
        tokens[row, : len(kept)] = torch.tensor(kept)
    return tokens, left_out


class TextTower:
    """The text side of an open_clip model, over packed texts where its parts are plain.

    Models with another text tower (CustomTextCLIP, CoCa), without a causal mask, or that read the
    embedding elsewhere, take open_clip's own road.
    """

    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device) -> None:
        """Args: dtype of the weights, as the model was loaded."""
        from open_clip import CLIP

        self._model = model
        self._tower: Tower | None = None
        reads_end = getattr(model, "text_pool_type", None) in ("argmax", "eos")
        if type(model) is CLIP and reads_end and model.attn_mask is not None:
            blocks = list(model.transformer.resblocks)
            if Tower.runs(blocks):
                self._tower = Tower(blocks, dtype, device)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, L) int64, padded -> features (B, D), not normalised."""
        import torch

        model, tower = self._model, self._tower
        if tower is None:
            features: torch.Tensor = model.encode_text(tokens, normalize=False)
            return features
        if model.text_pool_type == "argmax":
            ends = tokens.argmax(dim=-1)
        else:
            ends = (tokens == model.text_eos_id).int().argmax(dim=-1)
        lengths, order = (ends + 1).sort()
        filled = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        place = filled.nonzero()[:, 1]
        embedded = model.token_embedding(tokens[order][filled]).to(tower.sum_dtype)
        x = embedded + model.positional_embedding[place].to(tower.sum_dtype)
        x = tower(x, pack_texts(lengths.tolist(), tokens.device), causal=True)
        x = torch.empty_like(x).index_copy_(0, order, x)
        x = model.ln_final(x.to(model.transformer.get_cast_dtype()))
        if model.text_projection is None:
            return x
        if isinstance(model.text_projection, torch.nn.Linear):
            return torch.as_tensor(model.text_projection(x))
        return torch.as_tensor(x @ model.text_projection)
