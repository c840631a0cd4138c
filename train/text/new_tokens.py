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
    """A frozen embedding in which the ids from `first` on are looked up among `rows` (n, D)."""

    def __init__(self, base: nn.Embedding, first: int, rows: Tensor) -> None:
        super().__init__()
        self.base, self.first = base, first
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


def add_tokens(encoder: Encoder | JoinedText, tokens: Mapping[str, str]) -> dict[str, nn.Parameter]:
    """Teach an encoder new tokens; everything else in it is frozen.

    Must be called before `tokenizer_side()` is sent anywhere. The encoder counts as trainable
    from then on, since its features change while the embeddings are trained.

    Args:
        tokens: new token -> the word that its embedding starts from (the mean of the word's
            pieces, where the tokenizer splits it).

    Returns:
        Name of the part ("text_encoder_2") -> float32 embeddings (n, D), in the order of `tokens`.

    Raises:
        ConfigError: a token is there already, or a word is unknown.
    """
    encoder.requires_grad_(False)
    encoder.trainable = True
    return {own.config.name: _extend(own, tokens) for own in _encoders(encoder)}


def learned_embeds(encoder: Encoder | JoinedText) -> dict[str, dict[str, Tensor]]:
    """Part -> new token -> its embedding (D,), float32 on the CPU.

    One such inner entry, {token: embedding}, is a state that diffusers' `load_textual_inversion`
    takes, as a dict or as a safetensors file.
    """
    found = {}
    for own in _encoders(encoder):
        embedding: Any = own.model.get_input_embeddings()
        if isinstance(embedding, ExtendedEmbedding):
            ids = range(embedding.first, embedding.first + len(embedding.rows))
            names = own.tokenizer.tokenizer.convert_ids_to_tokens(list(ids))
            rows = embedding.rows.detach().float().cpu()
            found[own.config.name] = dict(zip(names, rows.clone(), strict=True))
    return found


def _extend(encoder: Encoder, tokens: Mapping[str, str]) -> nn.Parameter:
    base: Any = encoder.model.get_input_embeddings()
    rows = torch.stack([_start(encoder, base, word) for word in tokens.values()])
    extended = ExtendedEmbedding(base, encoder.tokenizer.add(list(tokens)), rows)
    encoder.model.set_input_embeddings(extended)
    encoder.trainable = True
    return extended.rows


def _start(encoder: Encoder, embedding: nn.Embedding, word: str) -> Tensor:
    tokenizer = encoder.tokenizer.tokenizer
    ids = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids or (tokenizer.unk_token_id in ids and tokenizer.unk_token_id is not None):
        raise ConfigError(f"{encoder.config.name} does not know the word {word!r}; take another.")
    return embedding.weight.detach()[ids].float().mean(0)


def _encoders(encoder: Encoder | JoinedText) -> list[Encoder]:
    return encoder.all() if isinstance(encoder, JoinedText) else [encoder]
