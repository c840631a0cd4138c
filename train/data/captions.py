"""Which caption a picture is shown with, and which scores are told: drawn by hash.

Everything is a function of (seed, epoch, key of the sample) and never of the captions, so two arms
of one seed make the same draws; only a picture that lacks what was drawn may fall back on another
kind. A picture whose number u lies under the share p of a kind takes that kind; raising p only
moves pictures over (arms are nested), which is what makes a difference between two blends a
difference of captions and not of luck.
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
    fallback_order,
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
        order = fallback_order(settings.captions)
        self._fallback = np.array([self.kinds.index(kind) for kind in order])

    def draw(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> Drawn:
        """The captions of rows (B,) in their epochs (B,)."""
        numbers, seed = self.index.numbers(rows), seed_of(self.settings, "data")
        wanted = drawn_kind(self._bounds, hash_uniform(numbers, epochs, seed, BLEND))
        kind = self._taken(rows, wanted)
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
        return Drawn(texts, kind, wanted, sample_index, dropped)

    def expected_shares(self) -> dict[str, float]:
        """Kind -> the share of the draws that takes it, after falling back; one pass."""
        index, at_a_time = self.index, 1 << 16
        shares = np.array([self.settings.captions[kind] for kind in self.kinds])
        totals = np.zeros(len(self.kinds))
        before = 0.0
        for start in range(0, len(index), at_a_time):
            rows = np.arange(start, min(start + at_a_time, len(index)))
            weight = np.ones(len(rows))
            if index.weights is not None:
                weight = np.diff(index.weights[rows], prepend=before)
                before = float(index.weights[rows[-1]])
            for number, share in enumerate(shares.tolist()):
                taken = self._taken(rows, np.full(len(rows), number))
                totals += share * np.bincount(taken, weight, len(self.kinds))
        return dict(zip(self.kinds, (totals / totals.sum()).tolist(), strict=True))

    def _taken(self, rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) the kinds that rows take for which `wanted` (B,) were drawn."""
        if self.settings.missing_captions != "fallback":
            return wanted
        have = np.stack([self.index.has(rows, kind) for kind in self.kinds], 1)
        first = self._fallback[have[:, self._fallback].argmax(1)]
        return np.where(have[np.arange(len(rows)), wanted], wanted, first)

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
