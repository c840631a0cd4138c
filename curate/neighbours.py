"""Who may be a copy of whom: candidate pairs from hashes and from vectors, never all pairs.

Hamming join. 64-bit hashes are cut into three bands of 21 or 22 bits. Two hashes within r bits
differ by at most r // 3 bits in one of the bands at least (pigeonhole), so looking up every
variation of each band finds every such pair exactly (multi-index hashing: Norouzi, Punjani and
Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012; faiss does the work).
Each query costs 700 look-ups for r <= 8, whatever N is, plus the chance collisions, of which there
are N / 3,000 a query for random hashes: linear up to about a million, and the quadratic term
overtakes near ten million, where more bands would be due. About 30 us a query at 100,000.

Vector neighbours. Up to 4,096 vectors are compared with all others; more are clustered by k-means
(about 1,000 to a cluster) and each is compared with those in its two nearest clusters, so two
neighbours are found when either's own cluster is among the other's two nearest. Comparing costs
N * 2,000 * D, and k-means 10 * 64 * D * (N / 1,000)^2, which overtakes it near three million. Only
the `count` nearest are returned, so a crowd of look-alikes cannot explode. Measured with random
512-d vectors, the worst case for clusters: 6 CPU s for 25,000, 17 for 50,000.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""(P, 2) row numbers, first < second, unique and sorted."""

BANDS = 3
MAX_RADIUS = 11
_ALL_UP_TO = 4096
_CLUSTER = 1000
_QUERY_BLOCK = 65_536


def hamming_join(
    index: NDArray[np.uint64], queries: NDArray[np.uint64], radius: int, threads: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (query row, index row) whose hashes differ in at most `radius` bits, themselves included.

    Args:
        index: (N,) hashes; queries: (Q,) hashes; radius: 0 to 11 bits.

    Returns:
        Two arrays of equal length, ordered by query and then by index row.
    """
    import faiss

    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius is {radius}; it must lie in 0..{MAX_RADIUS}.")
    if not len(index) or not len(queries):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    faiss.omp_set_num_threads(threads)
    table = faiss.IndexBinaryMultiHash(64, BANDS, 64 // BANDS)
    table.nflip = radius // BANDS
    table.add(_bytes(index))
    found_queries, found_rows = [], []
    for start in range(0, len(queries), _QUERY_BLOCK):
        block = queries[start : start + _QUERY_BLOCK]
        limits, _, rows = table.range_search(_bytes(block), radius + 1)  # faiss: strictly below
        counts = limits[1:].astype(np.int64) - limits[:-1].astype(np.int64)
        found_queries.append(np.repeat(np.arange(len(block)) + start, counts))
        found_rows.append(rows.astype(np.int64))
    query, row = np.concatenate(found_queries), np.concatenate(found_rows)
    order = np.lexsort((row, query))
    return query[order], row[order]


def nearest_vectors(
    vectors: NDArray[np.float32],
    count: int,
    queries: NDArray[np.float32] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` nearest other vectors of each vector by Euclidean distance.

    Args:
        vectors: (N, D). queries: (N, D), row by row another form of the same things (such as the
            mirror images) to search with; the row itself is no answer then either.

    Returns:
        (N, count) row numbers, -1 where there are fewer, and (N, count) squared distances.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    total, width = vectors.shape
    vectors = np.ascontiguousarray(vectors, np.float32)
    index: Any
    if total <= _ALL_UP_TO:
        index = faiss.IndexFlatL2(width)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, math.ceil(total / _CLUSTER))
        index.cp.seed, index.cp.niter = seed, 10
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
        index.train(vectors)
        index.nprobe = 2
    index.add(vectors)
    # One more than asked for, because a row finds itself, and not always in the first place.
    asked = vectors if queries is None else np.ascontiguousarray(queries, np.float32)
    distances, rows = index.search(asked, count + 1)
    own = rows == np.arange(total)[:, None]
    own[~own.any(axis=1), -1] = True
    return rows[~own].reshape(total, count), distances[~own].reshape(total, count)


def unique_pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> Pairs:
    """Unordered pairs of different rows, each once, sorted."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs = np.stack([low, high], axis=1)[low != high]
    return np.unique(pairs, axis=0) if len(pairs) else pairs.reshape(0, 2)


def _bytes(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
