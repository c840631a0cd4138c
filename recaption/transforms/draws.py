"""Numbers by hash for derived captions: of (key, position), so that larger doses hold smaller ones.

A word or clause is changed where its number lies under the dose. What is drawn instead comes from
a stream of its own and does not hang on the dose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.store.caption_blend import hash_uniform, key_numbers

ATTRIBUTE, EXCHANGED, CLAUSE, RECEIVER, DONOR, TRIED = range(101, 107)
"""Streams; those of `curate.store.caption_blend` stand below."""


def caption_numbers(keys: Sequence[str], indices: Sequence[int]) -> NDArray[np.uint64]:
    """A number a caption (N,), so that the samples of one picture are drawn apart."""
    return key_numbers([f"{key}/{index}" for key, index in zip(keys, indices, strict=True)])


def uniform(number: np.uint64, positions: int, stream: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each of the first `positions` positions of a caption."""
    places = np.arange(positions)
    return hash_uniform(np.full(positions, number, np.uint64), places, 0, stream)
