"""Pairs of copies among samples: by equality, by hashes and copy descriptors, by embeddings.

Works on arrays alone; curate.duplicates.search reads and writes the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.base.progress import progress
from curate.base.threads import in_threads
from curate.duplicates.agreement import CopyLimits, compare, is_copy
from curate.duplicates.clusters import Tree
from curate.duplicates.hash_pairs import near_hashes
from curate.duplicates.neighbours import Pairs, nearest_vectors, similar_pairs, unique_pairs
from curate.duplicates.thumbnails import Thumbnails
from curate.duplicates.vectors import ArrayVectors, Vectors
from curate.pictures.perceptual_hashes import VIEWS

if TYPE_CHECKING:
    from curate.duplicates.search import DuplicateSettings

HASH_SIMILARITY = 0.3
"""Least cosine of the copy descriptors of two samples whose hashes are near. No edit that hashes
find goes below; flat graphics share hashes by the thousand and go far below."""
_BLOCK, _VERIFIED = 4096, 1024
"""Pairs at a time: in a product of descriptors, and on the pixels, 2 to 5 ms each."""
_WORTH_TURNING, _WORTH_ALIKE = 0.35, 0.8
"""Misfit up to which a rejected pair is tried in the other direction, and cosine of the copy
descriptors from which on it is tried at any misfit."""
_BETTER, _BETTER_FIT = 0.7, 0.6
"""Shares of the misfit and of the final fit of which either must be left at most where the other
direction is believed instead."""
FLAT = 3.0
"""Standard deviation (of 8-bit levels) over the thumbnail below which a picture is flat."""


@dataclass(frozen=True)
class Samples:
    """N samples in order of quality, the best first: a row's number is its rank."""

    keys: NDArray[np.bytes_]
    """(N,) S32."""
    sha256: NDArray[np.uint64]
    """(N, 2): the first 128 bits, zeros for none."""
    pixel_sha256: NDArray[np.uint64]
    phash: NDArray[np.uint64]
    """(N, views)."""
    descriptor: NDArray[np.float16]
    """(N, 64), see curate.pictures.copy_descriptor."""
    structured: NDArray[np.bool_]
    """Decoded and not flat: fit for everything but exact matching."""
    thumbnails: Thumbnails

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Found:
    """Pairs of rows (first < second) and their distance."""

    pairs: Pairs
    distance: NDArray[np.float32]


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


def near_pairs(
    samples: Samples,
    chosen: NDArray[np.int64],
    verifier: Verifier,
    settings: DuplicateSettings,
    fresh: NDArray[np.bool_] | None = None,
    tree: Tree | None = None,
    memory: int = 1 << 28,
) -> Found:
    """Verified pairs among the chosen rows; distance = Hamming bits of the best pair of views.

    Args:
        fresh: (N,) rows that are new: only pairs with at least one of them are looked for.
        tree: centroids for the nearest descriptors; memory: bytes for blocks of the searches.
    """
    plain = np.ascontiguousarray(samples.phash[chosen, 0])
    new = None if fresh is None else fresh[chosen]
    candidates = [_nearest_descriptors(samples, chosen, settings, new, tree, memory)]
    for view in range(len(VIEWS)):
        seen = np.ascontiguousarray(samples.phash[chosen, view])
        # `second` as it is looks like `first` seen through the view.
        for first, second in near_hashes(
            plain, seen, settings.near_bits, new, settings.duplicate_threads, memory
        ):
            pairs = unique_pairs(first, second)
            alike = similarity(samples.descriptor, chosen[pairs]) >= HASH_SIMILARITY
            candidates.append(pairs[alike])
    pairs = verifier.copies(chosen[unique_pairs(*np.concatenate(candidates).T)])
    return Found(pairs, _hamming(samples.phash, pairs))


def _nearest_descriptors(
    samples: Samples,
    chosen: NDArray[np.int64],
    settings: DuplicateSettings,
    fresh: NDArray[np.bool_] | None,
    tree: Tree | None,
    memory: int,
) -> Pairs:
    """Pairs of places in `chosen` whose copy descriptors are nearest and near."""
    least = settings.descriptor_similarity
    if len(chosen) < 2 or least is None:
        return np.empty((0, 2), np.int64)
    rows, squared = nearest_vectors(
        ArrayVectors(samples.descriptor, chosen), settings.neighbours,
        threads=settings.duplicate_threads, memory=memory, tree=tree, fresh=fresh,
    )  # fmt: skip
    first, slot = np.nonzero((rows >= 0) & (1 - squared / 2 >= least))
    return unique_pairs(first, rows[first, slot])


def similarity(descriptor: NDArray[np.float16], pairs: Pairs) -> NDArray[np.float32]:
    """Cosine of the copy descriptors of each pair: (P,)."""
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        first, second = descriptor[pairs[start : start + _BLOCK]].astype(np.float32).swapaxes(0, 1)
        found[start : start + _BLOCK] = np.einsum("pd,pd->p", first, second)
    return found


def embedding_pairs(
    vectors: Vectors,
    rows: NDArray[np.int64],
    samples: Samples,
    near: Found,
    verifier: Verifier,
    settings: DuplicateSettings,
    fresh: NDArray[np.bool_] | None = None,
    tree: Tree | None = None,
    memory: int = 1 << 28,
) -> Found:
    """Verified pairs among the nearest embeddings; distance = 1 - cosine.

    Args:
        vectors: (M, D) unit embeddings of the samples `rows` (M,), ascending.
        fresh, tree, memory: see near_pairs.
    """
    if len(rows) < 2:
        return Found(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    least = settings.embedding_similarity
    assert least is not None
    nearest, squared = nearest_vectors(
        vectors, settings.neighbours, threads=settings.duplicate_threads,
        memory=memory, tree=tree, fresh=None if fresh is None else fresh[rows],
    )  # fmt: skip
    first, slot = np.nonzero((nearest >= 0) & (1 - squared / 2 >= least))
    candidates = unique_pairs(rows[first], rows[nearest[first, slot]])
    known = _member(candidates, near.pairs, len(samples))
    confirmed = verifier.copies(candidates[~known])
    pairs = unique_pairs(*np.concatenate([candidates[known], confirmed]).T)
    return Found(pairs, _cosine_distance(vectors, np.searchsorted(rows, pairs)))


def semdedup_pairs(
    vectors: Vectors,
    rows: NDArray[np.int64],
    epsilon: float,
    fresh: NDArray[np.bool_] | None = None,
    tree: Tree | None = None,
    memory: int = 1 << 28,
) -> Found:
    """All pairs with a cosine of at least 1 - epsilon, unverified; distance = 1 - cosine.

    Arguments as of embedding_pairs; see similar_pairs for the bounds in crowds.
    """
    if len(rows) < 2:
        return Found(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    new = None if fresh is None else fresh[rows]
    blocks = list(similar_pairs(vectors, 1 - epsilon, tree, new, memory))
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


class Verifier:
    """Decides pairs on the pixels (duplicates.agreement). Memory: some blocks of thumbnails."""

    def __init__(self, samples: Samples, settings: DuplicateSettings) -> None:
        self.samples, self.settings = samples, settings
        self.limits = CopyLimits(
            settings.copy_share, settings.copy_disagreement, settings.copy_residual
        )

    def copies(self, pairs: Pairs) -> Pairs:
        """The pairs that are copies, either way round and mirrored or not."""
        blocks = [pairs[start : start + _VERIFIED] for start in range(0, len(pairs), _VERIFIED)]
        kept = [np.empty((0, 2), np.int64)]
        with progress(len(pairs), "duplicates ", "pair", disable=not blocks) as bar:
            verdicts = in_threads(self._are_copies, blocks, self.settings.duplicate_threads)
            for some, good in zip(blocks, verdicts, strict=True):
                kept.append(some[good])
                bar.update(len(some))
        return np.concatenate(kept)

    def _are_copies(self, pairs: Pairs) -> NDArray[np.bool_]:
        first, second = (self.samples.thumbnails.take(rows) for rows in pairs.T)
        return are_copies(first, second, similarity(self.samples.descriptor, pairs), self.limits)


def are_copies(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    alike: NDArray[np.float32],
    limits: CopyLimits,
) -> NDArray[np.bool_]:
    """Whether each pair of thumbnails, (P, 4608) uint8 each, shows copies of one picture.

    Args:
        alike: (P,) cosine of their copy descriptors.
    """
    agreement = compare(first, second)
    good = is_copy(agreement, limits, alike)
    # Registration can get lost in one direction and not in the other, where it then fits better.
    worth = (agreement.misfit <= _WORTH_TURNING) | (alike >= _WORTH_ALIKE)
    again = np.flatnonzero(~good & worth)
    turned = compare(second[again], first[again])
    better = turned.misfit <= _BETTER * agreement.misfit[again]
    better |= turned.fit <= _BETTER_FIT * agreement.fit[again]
    good[again] = better & is_copy(turned, limits, alike[again])
    return good


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
