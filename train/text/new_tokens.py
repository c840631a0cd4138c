"""Textual inversion: new tokens whose embeddings alone are trained (Gal et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curate.base.errors import ConfigError
from train.text.encoder import Encoder
from train.text.joined import JoinedText


class ExtendedEmbedding(nn.Module):
    """A frozen embedding in which the ids from `first` on, of new `tokens`, are `rows` (n, D)."""

    def __init__(self, base: nn.Embedding, first: int, tokens: list[str], rows: Tensor) -> None:
        super().__init__()
        self.base, self.first, self.tokens = base, first, tokens
        self.rows = nn.Parameter(rows)

    @property
    def weight(self) -> Tensor:
        """The frozen embeddings (V, D)."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of ids (...)."""
        new = (ids >= self.first) & (ids < self.first + len(self.rows))
        nth = (ids - self.first).clamp(0, len(self.rows) - 1)
        # Published embeddings often have more rows than their tokenizer has tokens, or as many.
        old: Tensor = self.base(ids.clamp(max=self.base.num_embeddings - 1))
        return torch.where(new[..., None], self.rows[nth].to(old.dtype), old)

    def learned(self) -> dict[str, Tensor]:
        """New token -> its embedding (D,), float32 on the CPU.

        One entry is a state that diffusers' `load_textual_inversion` takes.
        """
        rows = self.rows.detach().float().cpu()
        return dict(zip(self.tokens, rows.clone(), strict=True))


def add_tokens(text: JoinedText, tokens: Mapping[str, str]) -> None:
    """Teach all encoders new tokens; everything else in them is frozen.

    Must be called before `tokenizer_side()` is sent anywhere. The encoders count as trainable
    from then on, since their features change while the embeddings are trained.

    Args:
        tokens: new token -> the word that its embedding starts from (the mean of the word's
            pieces, where the tokenizer splits it).

    Raises:
        ConfigError: a token is there already, or a word is unknown.
    """
    text.requires_grad_(False)
    text.trainable = True
    for encoder in text.encoders:
        base: Any = encoder.model.get_input_embeddings()
        rows = torch.stack([_start(encoder, base, word) for word in tokens.values()])
        first = encoder.tokenizer.add(list(tokens))
        encoder.model.set_input_embeddings(ExtendedEmbedding(base, first, list(tokens), rows))


def extended(text: JoinedText) -> dict[str, ExtendedEmbedding]:
    """Name of the part ("text_encoder_2") -> its embedding with new tokens."""
    own = {e.config.name: e.model.get_input_embeddings() for e in text.encoders}
    return {name: found for name, found in own.items() if isinstance(found, ExtendedEmbedding)}


def _start(encoder: Encoder, embedding: nn.Embedding, word: str) -> Tensor:
    tokenizer = encoder.tokenizer.tokenizer
    ids = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids or (tokenizer.unk_token_id in ids and tokenizer.unk_token_id is not None):
        raise ConfigError(f"{encoder.config.name} does not know the word {word!r}; take another.")
    return embedding.weight.detach()[ids].float().mean(0)
