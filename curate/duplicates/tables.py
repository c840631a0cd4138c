"""Which of several copies to keep, and the rows of the tables duplicate_pairs and duplicates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.duplicates.samples import Found, Samples
from curate.store.contract import DUPLICATE_PAIRS, DUPLICATES


def pair_rows(method: str, found: Found, samples: Samples) -> pa.Table:
    a, b = samples.keys[found.pairs[:, 0]], samples.keys[found.pairs[:, 1]]
    swap = a > b
    first, second = np.where(swap, b, a), np.where(swap, a, b)
    order = np.lexsort((second, first))
    columns = [
        pa.array([method] * len(first), pa.string()),
        pa.array(first[order].astype(str), pa.string()),
        pa.array(second[order].astype(str), pa.string()),
        pa.array(found.distance[order]),
    ]
    return pa.table(columns, schema=DUPLICATE_PAIRS)


def group_rows(
    method: str, evidence: list[Found], representative: NDArray[np.int64], samples: Samples
) -> tuple[pa.Table, int]:
    """Rows of one level for every sample in a group, and how many samples it drops."""
    total = len(samples)
    pairs = np.concatenate([found.pairs for found in evidence])
    distance = np.concatenate([found.distance for found in evidence])
    # Exact copies share the fate of their best, so only bests are weighed against each other.
    bests = np.sort(representative[pairs], axis=1)
    keeper = keep_best(bests[bests[:, 0] != bests[:, 1]], np.arange(total))
    keeper = keeper[representative]
    dropped = np.flatnonzero(keeper != np.arange(total))
    kept = np.unique(keeper[dropped])
    rows = np.concatenate([kept, dropped])
    # The first mention of a pair is by the strictest method.
    named, first = np.unique(bests[:, 0] * total + bests[:, 1], return_index=True)
    wanted = np.sort(np.stack([keeper[dropped], representative[dropped]], axis=1), axis=1)
    near = representative[dropped] != keeper[dropped]
    to_keeper = np.zeros(len(dropped), np.float32)
    place = np.searchsorted(named, wanted[near, 0] * total + wanted[near, 1])
    to_keeper[near] = distance[first[place]]
    order = np.lexsort((rows, keeper[rows]))
    table = pa.table(
        [
            pa.array([method] * len(rows), pa.string()),
            pa.array(samples.keys[rows][order].astype(str), pa.string()),
            pa.array(samples.keys[keeper[rows]][order].astype(str), pa.string()),
            pa.array((keeper[rows] == rows)[order]),
            pa.array(np.concatenate([np.zeros(len(kept), np.float32), to_keeper])[order]),
        ],
        schema=DUPLICATES,
    )
    return table, len(dropped)


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
