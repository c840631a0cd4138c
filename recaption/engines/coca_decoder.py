"""Texts out of an open_clip CoCa (Yu et al. 2022), a token at a time, with a key-value cache.

open_clip's own `generate` fails with transformers 5, and computes every earlier token again for
each new one. Both towers of a CoCa's text see earlier tokens only (the class token stands last and
is seen by none), so their keys and values can be kept: a text of T tokens costs O(T) forward passes
of one position each.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from curate.base.errors import ConfigError


class CocaDecoder:
    """The text towers of a CoCa over a batch of pictures."""

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: `open_clip.CoCa` with a CLIP text tower.

        Raises:
            ConfigError: another model, or a CoCa whose text tower is of another kind.
        """
        from open_clip import CoCa
        from open_clip.transformer import ResidualAttentionBlock, TextTransformer

        if not isinstance(model, CoCa):
            raise ConfigError(f"The model is no CoCa but a {type(model).__name__}.")
        blocks = getattr(getattr(model.text, "transformer", None), "resblocks", [])
        plain = all(type(block) is ResidualAttentionBlock for block in blocks)
        if not isinstance(model.text, TextTransformer) or not plain:
            raise ConfigError("Only a CoCa with open_clip's own plain text tower can caption.")
        self._text, self._decoder = model.text, model.text_decoder
        self.longest = int(self._decoder.context_length)
        """Tokens of a text at most, the start token included."""

    @torch.inference_mode()
    def start(self, image_embeddings: torch.Tensor) -> State:
        """The state before the first token of (B, N, D) picture embeddings."""
        crossed = []
        for block in self._decoder.cross_attn:
            seen = block.ln_1_kv(image_embeddings)
            attention, width = block.attn, block.attn.embed_dim
            weight, bias = attention.in_proj_weight, attention.in_proj_bias
            keys_values = F.linear(seen, weight[width:], bias[width:])
            keys, values = keys_values.chunk(2, -1)
            crossed.append((_heads(keys, attention), _heads(values, attention)))
        layers = len(self._text.transformer.resblocks) + len(self._decoder.resblocks)
        return State(crossed, [None] * layers, None)

    @torch.inference_mode()
    def step(self, state: State, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) float32 behind the next tokens (B,); the state goes on with them."""
        text, decoder = self._text, self._decoder
        place = state.length
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(tokens)[:, None].to(dtype)
        x = x + text.positional_embedding[place].to(dtype)
        mask = self._visible(state, tokens)
        number = 0
        for block in text.transformer.resblocks:
            x = _self_attention(block, x, state, number, mask)
            number += 1
        if text.cls_emb is None:
            x = text.ln_final(x)
        for block, cross, (keys, values) in zip(
            decoder.resblocks, decoder.cross_attn, state.crossed, strict=True
        ):
            x = _self_attention(block, x, state, number, None)
            number += 1
            query = _project(cross.ln_1(x), cross.attn, 0)
            x = _residual(cross, x, query, keys, values, None)
        x = decoder.ln_final(x)
        if decoder.text_projection is not None:
            x = x @ decoder.text_projection
        return x[:, 0].float()

    def _visible(self, state: State, tokens: torch.Tensor) -> torch.Tensor | None:
        """(B, 1, 1, T) bool: which tokens the text tower may look at.

        Tokens with the number of the padding are hidden, and "!" has that number in CLIP's
        vocabulary. Published weights were trained with that mask one place off, which open_clip
        keeps as its default (`correct_cls_mask`).
        """
        text = self._text
        if not text.use_pad_mask and text.cls_emb is None:
            return None
        is_word = (tokens != text.pad_id)[:, None]
        legacy = text.cls_emb is not None and not text.correct_cls_mask
        if state.visible is None:
            state.visible = torch.ones_like(is_word) if legacy else is_word
        else:
            newest = state.last_is_word if legacy else is_word
            state.visible = torch.cat([state.visible, newest], dim=1)
        state.last_is_word = is_word
        return state.visible[:, None, None]


class State:
    """Keys and values of B rows, T tokens so far."""

    def __init__(
        self,
        crossed: list[tuple[torch.Tensor, torch.Tensor]],
        kept: list[tuple[torch.Tensor, torch.Tensor] | None],
        visible: torch.Tensor | None,
    ) -> None:
        """
        Args:
            crossed: one a decoder layer, (B, H, N, D) keys and values of the picture.
            kept: one a layer of either tower, (B, H, T, D) keys and values of the text.
            visible: (B, T) bool, see CocaDecoder.
        """
        self.crossed, self.kept, self.visible = crossed, kept, visible
        self.last_is_word = torch.empty(0)

    @property
    def length(self) -> int:
        """T."""
        return 0 if self.kept[0] is None else int(self.kept[0][0].shape[2])

    def only(self, rows: torch.Tensor) -> State:
        """The state of rows (R,) int64, which may repeat."""
        crossed = [(keys[rows], values[rows]) for keys, values in self.crossed]
        kept = [None if pair is None else (pair[0][rows], pair[1][rows]) for pair in self.kept]
        chosen = State(crossed, kept, None if self.visible is None else self.visible[rows])
        if self.visible is not None:
            chosen.last_is_word = self.last_is_word[rows]
        return chosen


def _self_attention(
    block: Any, x: torch.Tensor, state: State, number: int, mask: torch.Tensor | None
) -> torch.Tensor:
    normed = block.ln_1(x)
    query, keys, values = (_project(normed, block.attn, part) for part in range(3))
    before = state.kept[number]
    if before is not None:
        keys = torch.cat([before[0], keys], dim=2)
        values = torch.cat([before[1], values], dim=2)
    state.kept[number] = (keys, values)
    return _residual(block, x, query, keys, values, mask)


def _residual(
    block: Any,
    x: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """open_clip's ResidualAttentionBlock behind its projections."""
    seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    x = x + block.ls_1(block.attn.out_proj(seen.transpose(1, 2).flatten(2)))
    out: torch.Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out


def _project(x: torch.Tensor, attention: Any, part: int) -> torch.Tensor:
    """Query (part 0), key (1) or value (2) of (B, L, D), as (B, H, L, D / H)."""
    width = attention.embed_dim
    rows = slice(part * width, (part + 1) * width)
    return _heads(
        F.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows]), attention
    )


def _heads(x: torch.Tensor, attention: Any) -> torch.Tensor:
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
