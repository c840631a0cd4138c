"""Pairs of copies among samples: by equality, by hashes and copy descriptors, by embeddings.

Works on arrays alone; curate.duplicates.search reads and writes the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.candidates.clusters import Tree
from curate.duplicates.candidates.hash_pairs import near_hashes
from curate.duplicates.candidates.look_alikes import LookAlikes
from curate.duplicates.candidates.neighbours import (
    Pairs,
    nearest_vectors,
    similar_pairs,
    unique_pairs,
)
from curate.duplicates.candidates.vectors import ArrayVectors, Vectors
from curate.duplicates.samples import Found, Samples
from curate.duplicates.settings import DuplicateSettings
from curate.duplicates.verify.verifier import Verifier
from curate.pictures.perceptual_hashes import VIEWS


def exact_pairs(samples: Samples) -> tuple[Found, NDArray[np.int64]]:
    """Pairs of each copy with the best of its kind, and that best row for every row.

    Equality is transitive, so one pair a copy says it all; a placeholder that occurs ten thousand
    times gives ten thousand pairs and not fifty million.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    total = len(samples)
    edges = np.concatenate([_equal(samples.sha256), _equal(samples.pixel_sha256)])
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (total, total))
    _, component = connected_components(graph, directed=False)
    _, best = np.unique(component, return_index=True)  # rows stand in order of quality
    representative = best[component]
    copies = np.flatnonzero(representative != np.arange(total))
    pairs = unique_pairs(representative[copies], copies)
    return Found(pairs, np.zeros(len(pairs), np.float32)), representative


def _equal(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(E, 2) edges from each row to the first row with the same digest; zeros equal nothing."""
    rows = np.flatnonzero(digests.any(axis=1))
    high, low = digests[rows, 0], digests[rows, 1]
    order = np.lexsort((rows, low, high))
    rows, high, low = rows[order], high[order], low[order]
    same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    run = np.concatenate([[0], np.cumsum(~same)]).astype(np.int64)[: len(rows)]
    first = rows[np.flatnonzero(np.concatenate([[True], ~same])[: len(rows)])]
    return np.stack([first[run], rows], axis=1)


@dataclass(frozen=True)
class Search:
    """What a search need not do anew, and the memory that it may take."""

    fresh: NDArray[np.bool_] | None = None
    """(N,) rows that are new: only pairs with at least one of them are looked for."""
    tree: Tree | None = None
    """Centroids for the nearest vectors."""
    memory: int = 1 << 28
    """Bytes for blocks."""

    def new(self, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Which of some rows are new."""
        return None if self.fresh is None else self.fresh[rows]


def near_pairs(
    samples: Samples,
    chosen: NDArray[np.int64],
    verifier: Verifier,
    settings: DuplicateSettings,
    search: Search,
) -> Found:
    """Verified pairs among the chosen rows; distance = Hamming bits of the best pair of views.

    The tree of `search` is that of the copy descriptors.
    """
    plain = np.ascontiguousarray(samples.phash[chosen, 0])
    vectors = ArrayVectors(samples.descriptor, chosen)
    nearest = _nearest(vectors, chosen, settings.descriptor_similarity, settings, search)
    hashed = LookAlikes(samples.descriptor, settings.look_alikes)
    threads, new = settings.duplicate_threads, search.new(chosen)
    for view in range(len(VIEWS)):
        seen = np.ascontiguousarray(samples.phash[chosen, view])
        # `second` as it is looks like `first` seen through the view.
        for first, second in near_hashes(
            plain, seen, settings.near_bits, new, threads, search.memory
        ):
            hashed.add(chosen[unique_pairs(first, second)])
    candidates = np.concatenate([nearest, hashed.pairs()])
    pairs = verifier.copies(unique_pairs(*candidates.T))
    return Found(pairs, _hamming(samples.phash, pairs), hashed.crowded)


def _nearest(
    vectors: Vectors,
    rows: NDArray[np.int64],
    least: float | None,
    settings: DuplicateSettings,
    search: Search,
) -> Pairs:
    """Pairs of `rows` whose vectors are nearest and have a cosine of at least `least`."""
    if len(rows) < 2 or least is None:
        return np.empty((0, 2), np.int64)
    nearest, squared = nearest_vectors(
        vectors, settings.neighbours, threads=settings.duplicate_threads,
        memory=search.memory, tree=search.tree, fresh=search.new(rows),
    )  # fmt: skip
    first, slot = np.nonzero((nearest >= 0) & (1 - squared / 2 >= least))
    return unique_pairs(rows[first], rows[nearest[first, slot]])


def embedding_pairs(
    vectors: Vectors,
    rows: NDArray[np.int64],
    samples: Samples,
    near: Found,
    verifier: Verifier,
    settings: DuplicateSettings,
    search: Search,
) -> Found:
    """Verified pairs among the nearest embeddings; distance = 1 - cosine.

    Args:
        vectors: (M, D) unit embeddings of the samples `rows` (M,), ascending.
    """
    candidates = _nearest(vectors, rows, settings.embedding_similarity, settings, search)
    if not len(candidates):
        return Found(candidates, np.empty(0, np.float32))
    known = _member(candidates, near.pairs, len(samples))
    confirmed = verifier.copies(candidates[~known])
    pairs = unique_pairs(*np.concatenate([candidates[known], confirmed]).T)
    return Found(pairs, _cosine_distance(vectors, np.searchsorted(rows, pairs)))


def semdedup_pairs(
    vectors: Vectors, rows: NDArray[np.int64], epsilon: float, search: Search
) -> Found:
    """All pairs with a cosine of at least 1 - epsilon, unverified; distance = 1 - cosine.

    Arguments as of embedding_pairs; see similar_pairs for the bounds in crowds.
    """
    if len(rows) < 2:
        return Found(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    new = search.new(rows)
    blocks = list(similar_pairs(vectors, 1 - epsilon, search.tree, new, search.memory))
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(block.pairs for block in blocks)])
    product = np.concatenate([np.empty(0, np.float32), *(block.product for block in blocks)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    distance = np.clip(1 - product[order], 0, 2)
    return Found(rows[pairs[order]], distance.astype(np.float32))


def _cosine_distance(vectors: Vectors, pairs: Pairs, block: int = 4096) -> NDArray[np.float32]:
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), block):
        first, second = (vectors.take(side) for side in pairs[start : start + block].T)
        cosine = np.einsum("pd,pd->p", first, second)
        found[start : start + block] = np.clip(1 - cosine, 0, 2)
    return found


def _hamming(phash: NDArray[np.uint64], pairs: Pairs) -> NDArray[np.float32]:
    """Least number of differing bits between one's plain hash and any view of the other."""
    if not len(pairs):
        return np.empty(0, np.float32)
    a, b = phash[pairs[:, 0]], phash[pairs[:, 1]]
    bits = np.minimum(
        np.bitwise_count(a[:, :1] ^ b).min(axis=1), np.bitwise_count(b[:, :1] ^ a).min(axis=1)
    )
    return bits.astype(np.float32)


def _member(pairs: Pairs, of: Pairs, total: int) -> NDArray[np.bool_]:
    return np.isin(pairs[:, 0] * total + pairs[:, 1], of[:, 0] * total + of[:, 1])


def with_exact(found: Found, exact: Found, samples: Samples) -> Found:
    """`found` with the exact pairs, which every other method finds too where it can see at all."""
    visible = samples.structured[exact.pairs].all(axis=1)
    pairs = np.concatenate([found.pairs, exact.pairs[visible]])
    return Found(pairs, np.concatenate([found.distance, exact.distance[visible]]))
