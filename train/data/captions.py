"""Which caption a picture is shown with, and which scores are told: drawn by hash.

Everything is a function of (seed, epoch, key of the sample) and never of the captions, so two arms
of one seed make the same draws. A picture whose number u lies under the share p of a kind takes
that kind; raising p only moves pictures over (arms are nested), which is what makes a difference
between two blends a difference of captions and not of luck.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.store.caption_blend import (
    BLEND,
    CHOICE,
    DROPOUT,
    blend_bounds,
    blend_order,
    drawn_kind,
    hash_bits,
    hash_uniform,
    splitmix,
)
from train.data.index import TrainingIndex
from train.protocols import Drawn
from train.settings import TrainSettings, seed_of

# Streams of hashes, apart from those of curate.store.caption_blend; conditions take one a score.
_TAGS, _CONDITIONS = 30, 1000


class CaptionDraws:
    """The draws of captions and conditions for rows of an index. Holds nothing of its size."""

    def __init__(self, index: TrainingIndex, settings: TrainSettings) -> None:
        self.index, self.settings = index, settings
        self.kinds = blend_order(settings.captions)
        self._bounds = blend_bounds(settings.captions)

    def draw(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> Drawn:
        """The captions of rows (B,) in their epochs (B,)."""
        numbers, seed = self.index.numbers(rows), seed_of(self.settings, "data")
        kind = drawn_kind(self._bounds, hash_uniform(numbers, epochs, seed, BLEND))
        choice = hash_uniform(numbers, epochs, seed, CHOICE)
        dropped = hash_uniform(numbers, epochs, seed, DROPOUT) < self.settings.prompt_dropout_prob
        texts = [""] * len(rows)
        sample_index = np.zeros(len(rows), np.int64)
        for number, name in enumerate(self.kinds):
            here = np.flatnonzero(kind == number)
            drawn = self.index.chosen_captions(rows[here], name, choice[here])
            for place, (index, text) in zip(here.tolist(), drawn, strict=True):
                sample_index[place], texts[place] = index, text
        if self.settings.tag_shuffle:
            orders = hash_bits(numbers, epochs, seed, _TAGS)
            texts = [_shuffled_tags(*pair) for pair in zip(texts, orders, strict=True)]
        for place in np.flatnonzero(dropped).tolist():
            texts[place] = ""
        return Drawn(texts, kind, sample_index, dropped)

    def conditions(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, n) bucket of each score, from 1; 0 where it is unknown or dropped, each by itself."""
        buckets = self.index.conditions(rows)
        numbers, seed = self.index.numbers(rows), seed_of(self.settings, "data")
        for column in range(buckets.shape[1]):
            u = hash_uniform(numbers, epochs, seed, _CONDITIONS + column)
            buckets[u < self.settings.condition_dropout_prob, column] = 0
        return buckets


def _shuffled_tags(text: str, bits: np.uint64) -> str:
    tags = [tag for part in text.split(",") if (tag := part.strip())]
    order = np.argsort(splitmix(splitmix(bits) ^ np.arange(len(tags), dtype=np.uint64)))
    return ", ".join(tags[place] for place in order.tolist())
