"""Several text encoders that a backbone reads together, as SDXL, SD3 and Flux do."""

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
from train.text.tokens import CaptionTokenizer


class JoinedTokenizer:
    """The tokenizers of several encoders; what one reads stands under its name."""

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
        self.encoders = nn.ModuleList(encoders)
        self.channels = [e for e in encoders if e.config.sequence and isinstance(e, ClipText)]
        self.others = [e for e in encoders if e.config.sequence and not isinstance(e, ClipText)]
        if len({encoder.tokens for encoder in self.channels}) > 1:
            raise ConfigError("CLIP encoders that are joined need the same tokens and windows.")
        groups = ([self.channels] if self.channels else []) + [[other] for other in self.others]
        self.width = max(sum(encoder.width for encoder in group) for group in groups)
        self.tokens = sum(group[0].tokens for group in groups)
        self.pooled_width = sum(encoder.pooled_width for encoder in encoders)
        self.trainable = any(encoder.trainable for encoder in encoders)

    def forward(self, tokens: Tokens) -> TextFeatures:
        """The features of all."""
        own = {encoder.config.name: encoder(tokens) for encoder in self.all()}
        sequences: list[Tensor] = []
        masks: list[Tensor] = []
        if self.channels:
            clip = [own[encoder.config.name] for encoder in self.channels]
            sequences.append(torch.cat([features.sequence for features in clip], -1))
            masks.append(clip[0].mask)
        for other in self.others:
            sequences.append(own[other.config.name].sequence)
            masks.append(own[other.config.name].mask)
        wide = [pad(sequence, (0, self.width - sequence.shape[-1])) for sequence in sequences]
        pooled = [features.pooled for features in own.values() if features.pooled is not None]
        return TextFeatures(
            torch.cat(wide, 1), torch.cat(masks, 1), torch.cat(pooled, -1) if pooled else None
        )

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """The tokens of all."""
        return self.tokenizer(texts)

    def tokenizer_side(self) -> JoinedTokenizer:
        """`tokenize`, `cut` and `pieces` without the weights, to be sent to other processes."""
        return self.tokenizer

    def cut(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) which texts do not fit the longest window."""
        return self.tokenizer.cut(texts)

    def pieces(self, text: str) -> list[str]:
        """As the longest-reading encoder sees it."""
        return self.tokenizer.pieces(text)

    def identity(self) -> dict[str, Any]:
        """Those of all, in order."""
        return {encoder.config.name: encoder.identity() for encoder in self.all()}

    def parts(self) -> dict[str, Any]:
        """Those of all."""
        return {name: part for encoder in self.all() for name, part in encoder.parts().items()}

    def all(self) -> list[Encoder]:
        """The encoders in order."""
        return [encoder for encoder in self.encoders if isinstance(encoder, Encoder)]
