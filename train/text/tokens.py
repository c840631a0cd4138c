"""The tokenizer's side of a text encoder: no weights, so it travels to loader processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from train.model_settings import TextConfig
from train.protocols import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_REMEMBERED = 2**24
"""Numbers that a tokenizer keeps of texts that it has seen: 64 MiB, 100,000 captions of 77."""

_Rows = tuple[NDArray[np.int32], ...]


class CaptionTokenizer:
    """Texts to the ids and the mask of one encoder, padded or cut to T tokens.

    Texts that were seen before are looked up: captions come back every epoch.
    """

    columns: tuple[str, ...] = ("ids", "mask")

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: TextConfig) -> None:
        if tokenizer.pad_token_id is None:
            raise ConfigError(f"The tokenizer of {config.name} has no padding token.")
        self.tokenizer, self.config = tokenizer, config
        self.name, self.window = config.name, config.tokens
        # Gemma's and Llama's pad on the left unless told; positions are counted from the left.
        tokenizer.padding_side = "right"
        self._seen: dict[str, _Rows] = {}

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """`NAME.ids`, `NAME.mask` ... (B, T) int64."""
        new = [text for text in dict.fromkeys(texts) if text not in self._seen]
        if new and len(self._seen) + len(new) > self.remembered:
            self._seen.clear()
            new = list(dict.fromkeys(texts))
        if new:
            arrays = [array.astype(np.int32) for array in self.encode(new)]
            self._seen.update(zip(new, zip(*arrays, strict=True), strict=True))
        rows = [self._seen[text] for text in texts]
        return {
            f"{self.name}.{column}": torch.from_numpy(np.stack(own).astype(np.int64))
            for column, own in zip(self.columns, zip(*rows, strict=True), strict=True)
        }

    @property
    def tokens(self) -> int:
        """T of the features."""
        return self.window

    @property
    def remembered(self) -> int:
        """Texts that are kept, at most."""
        return max(_REMEMBERED // (len(self.columns) * self.tokens), 1)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """The `columns` of N texts, each (N, ...), without looking anything up."""
        return self.padded(texts, self.window)

    def padded(self, texts: Sequence[str], window: int) -> tuple[NDArray[Any], ...]:
        """Ids and mask (N, window) as diffusers' pipelines ask for them."""
        encoded = self.tokenizer(
            self.prepared(texts),
            padding="max_length",
            max_length=window,
            truncation=True,
            return_attention_mask=True,
            return_tensors="np",
        )
        return encoded["input_ids"], encoded["attention_mask"]

    def prepared(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer gets them."""
        return [text.lower().strip() if self.config.lower_case else text for text in texts]

    def whole(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Ids of each text, neither padded nor cut."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            self.prepared(texts), add_special_tokens=special, truncation=False, verbose=False
        )["input_ids"]
        return ids

    def cut(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) which texts do not fit the window."""
        return np.array([len(ids) > self.window for ids in self.whole(texts)], bool)

    def pieces(self, text: str) -> list[str]:
        """What is read of a text, decoded piece by piece, special tokens included."""
        ids, mask = (array[0] for array in self.encode([text])[:2])
        return [self.tokenizer.decode([int(i)]).strip() for i in ids[mask == 1]]

    def add(self, tokens: Sequence[str]) -> int:
        """New tokens at the end of the vocabulary; the id of the first.

        Raises:
            ConfigError: one of them is a token already.
        """
        known = self.tokenizer.get_vocab()
        taken = [token for token in tokens if token in known]
        if taken:
            raise ConfigError(f"{taken[0]!r} is a token of {self.name} already; take a new name.")
        first = len(self.tokenizer)
        self.tokenizer.add_tokens(list(tokens))
        self._seen.clear()
        return first

    def __getstate__(self) -> dict[str, Any]:
        """Without what was seen: it is made again where it is needed."""
        return {**self.__dict__, "_seen": {}}
