"""Which caption a picture is shown with: blend, dropout and choice, drawn by hash.

Everything is a function of (seed, epoch, key of the sample) and never of the captions, so two arms
of one seed make the same draws. A picture whose number u lies under the share p of a kind takes
that kind; raising p only moves pictures over (arms are nested), which is what makes a difference
between two blends a difference of captions and not of luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.store.caption_blend import (
    BLEND,
    CHOICE,
    DROPOUT,
    blend_bounds,
    blend_order,
    drawn_kind,
    hash_uniform,
    key_numbers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Drawn:
    """Captions of one batch.

    tokens: (B, T) int64; mask: (B, T) float32, 1 = token; kind: (B,) index into the bank's
    `kinds`; dropped: (B,) bool, the caption was emptied.
    """

    tokens: NDArray[np.int64]
    mask: NDArray[np.float32]
    kind: NDArray[np.int64]
    dropped: NDArray[np.bool_]


class CaptionBank:
    """The captions of N samples as tokens, and the draws from them.

    Captions are tokenised once. Memory: one int16 a token of the window and caption.
    """

    def __init__(
        self,
        keys: Sequence[str],
        captions: Mapping[str, Sequence[Sequence[str]]],
        blend: Mapping[str, float],
        tokenizer: PreTrainedTokenizerFast,
        window: int,
        dropout: float,
        seed: int,
    ) -> None:
        """
        Args:
            captions: kind -> the texts of each sample, none or more.
            window: T, tokens that every caption is padded or cut to.

        Raises:
            ConfigError: a kind of the blend is not there, or a sample has no caption of it.
        """
        self.kinds = blend_order(blend)
        self.seed, self.dropout = seed, dropout
        self._numbers = key_numbers(keys)
        self._bounds = blend_bounds(blend)
        self.truncated: dict[str, int] = {}
        tokens, starts, counts, base = [], [], [], 0
        for kind in self.kinds:
            texts = texts_of(captions, kind)
            lacking = sum(not own for own in texts)
            if lacking:
                raise ConfigError(
                    f"{lacking} of {len(texts)} samples have no {kind} caption; write them, or "
                    f"set missing_captions to drop to leave these samples out."
                )
            encoded, truncated = encode(tokenizer, [t for own in texts for t in own], window)
            self.truncated[kind] = truncated
            count = np.array([len(own) for own in texts], np.int64)
            tokens.append(encoded)
            starts.append(base + np.concatenate([[0], np.cumsum(count)[:-1]]))
            counts.append(count)
            base += len(encoded)
        self._tokens = np.concatenate(tokens)
        self._starts, self._counts = np.stack(starts), np.stack(counts)
        self._empty = encode(tokenizer, [""], window)[0][0]
        self._pad = int(tokenizer.pad_token_id)

    def kind_of(self, rows: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index into `kinds` (B,) for sample rows (B,) in their epochs (B,)."""
        return drawn_kind(self._bounds, hash_uniform(self._numbers[rows], epoch, self.seed, BLEND))

    def draw(self, rows: NDArray[np.int64], epoch: NDArray[np.int64]) -> Drawn:
        """The captions of sample rows (B,) in their epochs (B,)."""
        kind = self.kind_of(rows, epoch)
        numbers = self._numbers[rows]
        choice = hash_uniform(numbers, epoch, self.seed, CHOICE)
        nth = (choice * self._counts[kind, rows]).astype(np.int64)
        tokens = self._tokens[self._starts[kind, rows] + nth].astype(np.int64)
        dropped = hash_uniform(numbers, epoch, self.seed, DROPOUT) < self.dropout
        tokens[dropped] = self._empty
        return Drawn(tokens, (tokens != self._pad).astype(np.float32), kind, dropped)


def texts_of(captions: Mapping[str, Sequence[Sequence[str]]], kind: str) -> Sequence[Sequence[str]]:
    """The captions of `kind`; raises ConfigError where there are none."""
    if kind not in captions:
        known = ", ".join(sorted(captions)) or "none"
        raise ConfigError(f"There are no {kind} captions here (there are: {known}).")
    return captions[kind]


def encode(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], window: int
) -> tuple[NDArray[np.int16] | NDArray[np.int32], int]:
    """Token ids (M, window), padded, each closed by </s>, and how many texts had to be cut."""
    small = len(tokenizer) < 2**15
    tokens = np.full((len(texts), window), tokenizer.pad_token_id, np.int16 if small else np.int32)
    truncated = 0
    for row, encoding in enumerate(tokenizer.backend_tokenizer.encode_batch(list(texts))):
        ids = encoding.ids
        if len(ids) > window:
            truncated += 1
            ids = [*ids[: window - 1], tokenizer.eos_token_id]
        tokens[row, : len(ids)] = ids
    return tokens, truncated
