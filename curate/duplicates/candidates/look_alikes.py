"""Candidate pairs whose hashes are near, as many a sample as somebody wants to look at.

Flat graphics share hashes by the thousand, and looking at the pixels of one pair costs a hundred
times what comparing its copy descriptors does. So descriptors say which pairs are likeliest, and of
each sample no more than these are kept; who was left with fewer is on record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.candidates.neighbours import Pairs, unique_pairs
from curate.duplicates.samples import similarity

LEAST_ALIKE = 0.3
"""Least cosine of the copy descriptors of two samples whose hashes are near: no edit that hashes
find goes below."""

_ROOM = 1 << 20
"""Pairs up to which nothing is left out on the way."""


class LookAlikes:
    """Pairs of samples, of which each one is among the `most` likeliest of one of its two samples.

    What is kept does not depend on the order or the grouping in which pairs are added. Memory: 16
    bytes a pair, of at most twice what is kept, and 100 more while the likeliest are chosen.

    Args:
        descriptor: (N, 64) copy descriptors.
        most: pairs a sample.
    """

    def __init__(self, descriptor: NDArray[np.float16], most: int) -> None:
        self._descriptor, self._most = descriptor, most
        self._crowded = np.zeros(len(descriptor), bool)
        self._held = [np.empty((0, 2), np.int64)]
        self._count, self._room = 0, _ROOM

    @property
    def crowded(self) -> int:
        """Samples that lost a pair."""
        return int(self._crowded.sum())

    def add(self, pairs: Pairs) -> None:
        """Take further pairs; one may come again."""
        pairs = pairs[similarity(self._descriptor, pairs) >= LEAST_ALIKE]
        self._held.append(pairs)
        self._count += len(pairs)
        if self._count > self._room:
            self._held = [self.pairs()]
            self._count = len(self._held[0])
            self._room = max(_ROOM, 2 * self._count)

    def pairs(self) -> Pairs:
        """The likeliest of all that were added; of equally likely ones those of better samples."""
        pairs = unique_pairs(*np.concatenate(self._held).T)
        alike = similarity(self._descriptor, pairs)
        either, other = np.concatenate([pairs, pairs[:, ::-1]]).T
        order = np.lexsort((other, -np.tile(alike, 2), either))
        ordered = either[order]
        chosen = np.empty(len(order), bool)
        chosen[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered) < self._most
        kept = chosen[: len(pairs)] | chosen[len(pairs) :]
        self._crowded[pairs[~kept]] = True
        return pairs[kept]
