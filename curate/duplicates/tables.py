"""The rows of the tables duplicate_pairs and duplicates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.duplicates.copies import Found, Samples
from curate.duplicates.keep import keep_best
from curate.store.dataset import DUPLICATE_PAIRS, DUPLICATES


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
