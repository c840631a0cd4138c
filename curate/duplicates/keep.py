"""Which of several copies to keep: greedy by quality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def keep_best(pairs: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every row the row that is kept for it: itself where it is kept.

    The result is that of going through the rows from the best to the worst and keeping each one
    that is near no row kept before. So a row is dropped only if it is near a KEPT one (SemDeDup's
    published code also drops what is near a dropped one), and of several kept ones it is assigned
    to the best.

    Done in rounds of array operations: a row is kept once all its better neighbours are dropped,
    and dropped once one of them is kept. Every round decides at least the best undecided row of
    each component; in practice a handful of rounds, each linear in the pairs that are left.

    Args:
        pairs: (P, 2) rows that are near each other.
        rank: (N,) place of each row in the order of quality, 0 for the best; all different.
    """
    total = len(rank)
    keeper = np.arange(total)
    if not len(pairs):
        return keeper
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    better = np.where(swap, pairs[:, 1], pairs[:, 0])
    worse = np.where(swap, pairs[:, 0], pairs[:, 1])
    kept = np.ones(total, bool)
    kept[pairs.ravel()] = False
    open_rows = ~kept
    while open_rows.any():
        live = open_rows[worse] & ~(~kept & ~open_rows)[better]  # pairs whose better row may stay
        blocked = np.zeros(total, bool)
        blocked[worse[live]] = True
        newly_kept = open_rows & ~blocked
        kept |= newly_kept
        open_rows &= ~newly_kept
        dropped = np.zeros(total, bool)
        dropped[worse[kept[better]]] = True
        open_rows &= ~dropped
    best = np.full(total, np.iinfo(np.int64).max)
    to_kept = kept[better] & ~kept[worse]
    np.minimum.at(best, worse[to_kept], rank[better[to_kept]])
    row_of_rank = np.empty(total, np.int64)
    row_of_rank[rank] = np.arange(total)
    lost = ~kept
    keeper[lost] = row_of_rank[best[lost]]
    return keeper
