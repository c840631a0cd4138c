"""The text encoders that a backbone reads together: one, or several, as of SDXL, SD3 and Flux."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from curate.base.errors import ConfigError
from train.protocols import TextFeatures, Tokens
from train.text.clip import ClipText
from train.text.encoder import Encoder
from train.text.t5 import T5Text
from train.text.tokens import CaptionTokenizer


class JoinedTokenizer:
    """The tokenizers of all encoders; what one reads stands under its name."""

    def __init__(self, own: Sequence[CaptionTokenizer]) -> None:
        """
        Raises:
            ConfigError: two have one name, or none gives a sequence.
        """
        self.own = list(own)
        if len({tokenizer.name for tokenizer in own}) < len(own):
            raise ConfigError("Two text encoders have the same name.")
        read = [tokenizer for tokenizer in self.own if tokenizer.config.sequence]
        if not read:
            raise ConfigError("No text encoder gives a sequence; set sequence for one of them.")
        self.longest = max(read, key=lambda tokenizer: tokenizer.tokens)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The tokens of all."""
        return {name: ids for tokenizer in self.own for name, ids in tokenizer(texts).items()}

    def cut(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) which texts do not fit the longest window: their end is read by none."""
        return self.longest.cut(texts)

    def pieces(self, text: str) -> list[str]:
        """As the longest-reading encoder sees it."""
        return self.longest.pieces(text)


class JoinedText(nn.Module):
    """CLIP's features side by side along channels, then along tokens with those of the others.

    Narrower ones are filled up with zeros, and the pooled vectors stand one behind the other
    (Esser et al. 2024, arXiv 2403.03206, section 4). What a backbone reads of each encoder, its
    config says: Flux takes the pooled vector of CLIP and the sequence of T5.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        """
        Raises:
            ConfigError: names or windows that do not go together, or no sequence at all.
        """
        super().__init__()
        self.tokenizer = JoinedTokenizer([encoder.tokenizer for encoder in encoders])
        self.encoders: Sequence[Encoder] = nn.ModuleList(encoders)  # type: ignore[assignment]
        read = [encoder for encoder in encoders if encoder.config.sequence]
        clip = [encoder for encoder in read if isinstance(encoder, ClipText)]
        if len({encoder.tokens for encoder in clip}) > 1:
            raise ConfigError("CLIP encoders that are joined need the same tokens and windows.")
        groups: list[list[Encoder]] = [[*clip]] if clip else []
        groups += [[encoder] for encoder in read if encoder not in clip]
        self._groups: list[list[str]] = [
            [encoder.config.name for encoder in group] for group in groups
        ]
        self.width = max(sum(encoder.width for encoder in group) for group in groups)
        self.tokens = sum(group[0].tokens for group in groups)
        self.pooled_width = sum(encoder.pooled_width for encoder in encoders)
        self.hides_padding = all(isinstance(e, T5Text) and e.config.masked for e in encoders)
        self.hides_padding &= len(encoders) == 1
        self.trainable = any(encoder.config.trainable for encoder in encoders)

    def forward(self, tokens: Tokens) -> TextFeatures:
        """The features of all."""
        own: dict[str, TextFeatures] = {
            encoder.config.name: encoder(tokens) for encoder in self.encoders
        }
        sequences = [_cat([own[name].sequence for name in group], -1) for group in self._groups]
        wide = [
            part if part.shape[-1] == self.width else pad(part, (0, self.width - part.shape[-1]))
            for part in sequences
        ]
        masks = [own[group[0]].mask for group in self._groups]
        pooled = [features.pooled for features in own.values() if features.pooled is not None]
        return TextFeatures(_cat(wide, 1), _cat(masks, 1), _cat(pooled, -1) if pooled else None)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """The tokens of all."""
        return self.tokenizer(texts)

    def without_padding(self, tokens: Tokens) -> Tokens:
        """Tokens up to the last real one of all texts, where nobody looks at what stands behind."""
        if not self.hides_padding:
            return tokens
        (mask,) = (own for name, own in tokens.items() if name.endswith(".mask"))
        longest = last_real(mask)
        return {name: ids[:, :longest] for name, ids in tokens.items()}

    def tokenizer_side(self) -> JoinedTokenizer:
        """Reads texts without the weights; to be sent to other processes."""
        return self.tokenizer

    def identity(self) -> dict[str, Any]:
        """Those of all, in order."""
        return {encoder.config.name: encoder.identity() for encoder in self.encoders}

    def parts(self) -> dict[str, Any]:
        """Those of all."""
        return {name: part for encoder in self.encoders for name, part in encoder.parts().items()}


def last_real(mask: Tensor) -> int:
    """Tokens up to the last one that any of the texts (B, T) has; at least one."""
    real = mask.any(0).nonzero()
    return int(real[-1]) + 1 if len(real) else 1


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    """Long sequences of a lone encoder are not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
