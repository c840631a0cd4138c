"""Captions exchanged among pictures: what a set's style gives where its information is gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.store.caption_blend import hash_uniform, key_numbers
from recaption.transforms.draws import DONOR, RECEIVER, TRIED

_MOST_TRIES = 200


def donors(
    keys: Sequence[str], texts: Sequence[str], indices: Sequence[int]
) -> NDArray[np.int64] | None:
    """Row whose caption each row gets (N,): a permutation within each sample index.

    Two orders by hash, of those who give and those who get, are laid beside each other; where a
    picture would get one of its own texts, two givers change places. So no picture keeps a text,
    whosever it was, and no two texts stay together.

    Returns:
        None where there is none, as one text is more than half of all.
    """
    numbers = key_numbers(keys)
    groups = np.unique(np.asarray(texts, object), return_inverse=True)[1]
    own: dict[str, set[int]] = {}
    for key, group in zip(keys, groups.tolist(), strict=True):
        own.setdefault(key, set()).add(group)
    samples = np.asarray(indices, np.int64)
    given = np.full(len(keys), -1, np.int64)
    for index in np.unique(samples).tolist():
        rows = np.flatnonzero(samples == index)
        takers = rows[np.argsort(hash_uniform(numbers[rows], index, 0, RECEIVER), kind="stable")]
        givers = rows[np.argsort(hash_uniform(numbers[rows], index, 0, DONOR), kind="stable")]
        kept = [own[keys[row]] for row in takers.tolist()]
        offered = groups[givers]
        for place in range(len(rows)):
            if offered[place] in kept[place]:
                other = _partner(place, kept, offered, int(numbers[takers[place]] >> np.uint64(1)))
                if other is None:
                    return None
                for column in (givers, offered):
                    column[[place, other]] = column[[other, place]]
        given[takers] = givers
    return given


def _partner(
    place: int, kept: Sequence[set[int]], offered: NDArray[np.int64], number: int
) -> int | None:
    """A place to change givers with, so that neither keeps a text; None where there is none."""
    count = len(kept)

    def fits(other: int) -> bool:
        return offered[other] not in kept[place] and offered[place] not in kept[other]

    draws = hash_uniform(np.full(_MOST_TRIES, number, np.uint64), np.arange(_MOST_TRIES), 0, TRIED)
    for other in (draws * count).astype(np.int64).tolist():
        if fits(other):
            return int(other)
    # Where one text is nearly half of all, few places are left.
    return next((other for other in range(count) if fits(other)), None)
