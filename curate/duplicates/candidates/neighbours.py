"""Who may be a copy of whom: candidate pairs from hashes and from vectors, never all pairs.

Hashes: curate.duplicates.candidates.hamming, exact within the radius. Vectors: within clusters of a
constant size (curate.duplicates.candidates.clusters), each vector in its three nearest, so two
neighbours meet unless all of these differ. Up to 4,096 vectors are one cluster, and the answer is
exact.

Costs for N: hashes N * 165 look-ups a view; vectors about N * 1,350 * D multiplications within
clusters, and N * 9 sqrt(N / 300) * D to assign them, the part that grows faster than N. `caplab
bench duplicates --scale` measures both; docs/duplicates.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.candidates.clusters import Tree, train
from curate.duplicates.candidates.vectors import ArrayVectors, Floats, Vectors

Pairs = NDArray[np.int64]
"""(P, 2) row numbers, first < second, unique and sorted."""

ALL_UP_TO = 4096
LEADERS = 8192
"""Members of a cluster, the best first, that the others of a larger one are compared with."""
CROWD = 64
"""Pairs with better rows that a row has in one cluster at most."""


@dataclass(frozen=True)
class Similar:
    """Pairs of rows (first < second) and their inner product."""

    pairs: Pairs
    product: NDArray[np.float32]


def similar_pairs(
    vectors: Vectors,
    least: float,
    tree: Tree | None = None,
    fresh: NDArray[np.bool_] | None = None,
    memory: int = 1 << 28,
) -> Iterator[Similar]:
    """Pairs with an inner product (cosine, of unit vectors) of at least `least`, in blocks.

    Each pair comes once. Rows stand in order of quality, the best first; of a crowd of look-alikes
    a row is paired with the `CROWD` best in each of its clusters, and in a cluster of more than
    `LEADERS` compared with those alone, so that cost and pairs stay linear whatever the data.

    Args:
        vectors: (N, D). tree: centroids; None compares all with all.
        fresh: (N,) rows that are new: only pairs with at least one of them.
        memory: bytes for a group of clusters and its products, 4 D + 4 s a row of it.
    """
    near = _clusters(vectors, tree)
    for group, rows in _groups(near, vectors.width, memory):
        if fresh is not None and not fresh[rows].any():
            continue
        data = vectors.take(rows)
        for cluster, mine in group:
            new = None if fresh is None else fresh[mine]
            if new is not None and not new.any():
                continue
            first, second, product = _within(data[np.searchsorted(rows, mine)], least, new)
            pairs = np.stack([mine[first], mine[second]], axis=1)
            # A pair that shares several clusters is the affair of the lowest of them.
            here = _lowest_shared(near[pairs[:, 0]], near[pairs[:, 1]]) == cluster
            if here.any():
                yield Similar(pairs[here], product[here])


def nearest_vectors(
    vectors: NDArray[np.floating] | Vectors,
    count: int,
    threads: int = 1,
    memory: int = 1 << 28,
    tree: Tree | None = None,
    fresh: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `count` nearest other vectors of each vector by Euclidean distance.

    Beyond `ALL_UP_TO` vectors, among those whose nearest centroid is one of its three nearest.

    Args:
        vectors: (N, D).
        threads: of the training; products use as many as NumPy's BLAS is set to.
        memory: bytes for a group of clusters.
        tree: centroids of an earlier search; None trains new ones where they are needed.
        fresh: (N,) rows that are new: an old row is told of its nearest new ones alone.

    Returns:
        (N, count) row numbers, -1 where there are fewer, and (N, count) squared distances.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    held = ArrayVectors(vectors) if isinstance(vectors, np.ndarray) else vectors
    if tree is None and len(held) > ALL_UP_TO:
        tree = train(held)
    probes = _clusters(held, tree)
    own = probes[:, 0]
    distances = np.full((len(held), count), np.inf, np.float32)
    rows = np.full((len(held), count), -1, np.int64)
    listed = np.argsort(own, kind="stable")
    ends = np.searchsorted(own[listed], np.arange(1 if tree is None else len(tree)), side="right")
    for group, wanted in _groups(probes, held.width, memory):
        data = held.take(wanted)
        for cluster, mine in group:
            members = listed[ends[cluster - 1] if cluster else 0 : ends[cluster]]
            if fresh is None:
                parts = [(mine, members)]
            else:
                parts = [
                    (mine[fresh[mine]], members),
                    (mine[~fresh[mine]], members[fresh[members]]),
                ]
            for searching, among in parts:
                if not len(searching) or not len(among):
                    continue
                against = held.take(among)
                for start in range(0, len(searching), _ROWS):
                    some = searching[start : start + _ROWS]
                    found = _squared(data[np.searchsorted(wanted, some)], against)
                    found[among[None] == some[:, None]] = np.inf  # a row finds itself
                    _merge(distances, rows, some, found, among)
    return rows, distances


def unique_pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> Pairs:
    """Unordered pairs of different rows, each once, sorted."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs = np.stack([low, high], axis=1)[low != high]
    if not len(pairs):
        return pairs.reshape(0, 2)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(axis=1)])]


_ROWS = 512


def _clusters(vectors: Vectors, tree: Tree | None) -> NDArray[np.int32]:
    if tree is not None:
        return tree.assign(vectors)
    return np.zeros((len(vectors), 1), np.int32)


def _lowest_shared(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int32]:
    """(P, 3) clusters of each side -> (P,) the lowest one that both have."""
    shared = (a[:, :, None] == b[:, None, :]).any(axis=2) & (a >= 0)
    lowest: NDArray[np.int32] = np.where(shared, a, np.iinfo(np.int32).max).min(axis=1)
    return lowest


def _groups(
    near: NDArray[np.int32], width: int, memory: int
) -> Iterator[tuple[list[tuple[int, NDArray[np.int64]]], NDArray[np.int64]]]:
    """Clusters with their rows, as many at a time as fit in memory, and all rows of those."""
    flat = near.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]  # -1: no third cluster
    clusters = flat[order]
    rows = order // near.shape[1]
    edges = np.flatnonzero(np.diff(clusters)) + 1
    most = max(1, memory // (10 * width))
    group: list[tuple[int, NDArray[np.int64]]] = []
    held = 0
    for start, stop in zip([0, *edges], [*edges, len(clusters)], strict=True):
        if start == stop:
            continue
        if group and held + stop - start > most:
            yield group, np.unique(np.concatenate([mine for _, mine in group]))
            group, held = [], 0
        group.append((int(clusters[start]), rows[start:stop]))
        held += stop - start
    if group:
        yield group, np.unique(np.concatenate([mine for _, mine in group]))


def _within(
    data: Floats, least: float, fresh: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Places i < j of one cluster with a product of at least `least`; see similar_pairs."""
    leaders = data[:LEADERS]
    asking = np.arange(len(data)) if fresh is None else np.flatnonzero(fresh)
    firsts, seconds, products = [], [], []
    for start in range(0, len(asking), _ROWS):
        some = asking[start : start + _ROWS]
        # Without fresh ones only better rows are asked, so half of the square is left out.
        against = leaders if fresh is not None else leaders[: some[-1] + 1]
        product = data[some] @ against.T
        place, other = np.nonzero(product >= least)
        mine = some[place]
        kept = other < mine
        if fresh is not None:
            kept |= (other > mine) & ~fresh[other]
        firsts.append(np.minimum(other, mine)[kept])
        seconds.append(np.maximum(other, mine)[kept])
        products.append(product[place[kept], other[kept]])
        if fresh is not None and len(data) > LEADERS:
            # A fresh leader is asked by the old ones that are no leaders.
            lead = some[some < LEADERS]
            rest = np.flatnonzero(~fresh[LEADERS:]) + LEADERS
            product = data[rest] @ data[lead].T
            place, other = np.nonzero(product >= least)
            firsts.append(lead[other])
            seconds.append(rest[place])
            products.append(product[place, other])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    values = np.concatenate(products)
    order = np.lexsort((first, second))
    first, second, values = first[order], second[order], values[order]
    begins = np.searchsorted(second, second)  # of each row's own pairs
    kept = np.arange(len(second)) - begins < CROWD
    return first[kept], second[kept], values[kept].astype(np.float32)


def _squared(queries: Floats, against: Floats) -> Floats:
    """(Q, M) squared distances."""
    squared = (queries**2).sum(axis=1)[:, None] + (against**2).sum(axis=1)[None]
    return np.asarray(np.maximum(squared - 2 * (queries @ against.T), 0), np.float32)


def _merge(
    distances: NDArray[np.float32],
    rows: NDArray[np.int64],
    some: NDArray[np.int64],
    found: Floats,
    members: NDArray[np.int64],
) -> None:
    """Put the nearest of `found` (Q, M) into the lists of the rows `some`."""
    count = distances.shape[1]
    if found.shape[1] > count:
        columns = np.argpartition(found, count - 1, axis=1)[:, :count]
    else:
        columns = np.tile(np.arange(found.shape[1]), (len(found), 1))
    near = np.take_along_axis(found, columns, axis=1)
    named = np.where(np.isfinite(near), members[columns], -1)
    both = np.concatenate([distances[some], near], axis=1)
    names = np.concatenate([rows[some], named], axis=1)
    order = np.lexsort((names, both), axis=1)[:, :count]
    distances[some] = np.take_along_axis(both, order, axis=1)
    rows[some] = np.take_along_axis(names, order, axis=1)
