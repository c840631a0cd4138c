"""Pairs of copies among samples: by equality, by hashes and thumbnails, by embeddings.

Works on arrays alone; curate.duplicates reads and writes the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.fingerprints import VIEWS
from curate.hash_pairs import near_hashes
from curate.neighbours import Pairs, nearest_vectors, unique_pairs
from curate.registration import Agreement, coarse_difference, compare
from curate.thumbnails import Thumbnails

if TYPE_CHECKING:
    from curate.duplicates import DuplicateSettings

COARSE_LIMIT = 0.5
"""Difference at a few points above which a candidate pair is not worth registering."""
BUSY = 0.65
"""Share of fine structure from which on a picture cannot agree with another by chance."""
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
    coarse: NDArray[np.float16]
    """(N, 108), see coarse_vectors."""
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
) -> Found:
    """Verified pairs among the chosen rows; distance = Hamming bits of the best pair of views.

    Args:
        fresh: (N,) rows that are new: only pairs with at least one of them are looked for.
    """
    plain = np.ascontiguousarray(samples.phash[chosen, 0])
    new = None if fresh is None else fresh[chosen]
    candidates: dict[bool, list[Pairs]] = {False: [], True: []}
    for view, (crop, mirrored) in enumerate(VIEWS):
        seen = np.ascontiguousarray(samples.phash[chosen, view])
        # `second` as it is looks like `first` seen through the view.
        for first, second in near_hashes(
            plain, seen, settings.near_bits, new, settings.duplicate_threads
        ):
            if crop == 0:  # these two views find every pair in both directions
                first, second = unique_pairs(first, second).T
            rough = verifier.worthwhile(chosen[first], chosen[second], crop, mirrored)
            candidates[mirrored].append(rough)
    for mirrored in (False, True):
        found = _nearest_thumbnails(samples, chosen, mirrored, verifier, settings, new)
        candidates[mirrored].append(found)
    confirmed = [
        verifier.copies(unique_pairs(*np.concatenate(parts).T), mirrored)
        for mirrored, parts in candidates.items()
    ]
    pairs = unique_pairs(*np.concatenate(confirmed).T)
    return Found(pairs, _hamming(samples.phash, pairs))


def _nearest_thumbnails(
    samples: Samples,
    chosen: NDArray[np.int64],
    mirrored: bool,
    verifier: Verifier,
    settings: DuplicateSettings,
    fresh: NDArray[np.bool_] | None,
) -> Pairs:
    """Pairs whose colours lie alike inside the picture: labels and logos change many hash bits."""
    if len(chosen) < 2:
        return np.empty((0, 2), np.int64)
    coarse = samples.coarse[chosen].astype(np.float32)
    queries = mirrored_coarse(coarse) if mirrored else None
    rows, squared = nearest_vectors(
        coarse, settings.neighbours, queries, threads=settings.duplicate_threads
    )
    power = (coarse**2).sum(axis=1, keepdims=True)
    first, slot = np.nonzero((rows >= 0) & (squared < COARSE_LIMIT * power))
    second = rows[first, slot]
    if fresh is not None:
        kept = fresh[first] | fresh[second]
        first, second = first[kept], second[kept]
    pairs = unique_pairs(chosen[first], chosen[second])
    return verifier.worthwhile(pairs[:, 0], pairs[:, 1], 0.0, mirrored)


def coarse_vectors(thumbnails: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(N, 108): colours at 6 x 6 points of the thumbnail's inside, without their mean.

    The outer eighth is left out: a label there must not decide who is near.
    """
    inside = (
        thumbnails[:, 4:-4, 4:-4].reshape(-1, 6, 4, 6, 4, 3).mean(axis=(2, 4), dtype=np.float32)
    )
    centred = inside - inside.mean(axis=(1, 2), keepdims=True)
    return centred.reshape(len(inside), -1).astype(np.float16)


def mirrored_coarse(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 108): what coarse_vectors gives for the mirror images."""
    return coarse.reshape(-1, 6, 6, 3)[:, :, ::-1].reshape(coarse.shape)


def embedding_pairs(
    vectors: NDArray[np.float32],
    present: NDArray[np.bool_],
    samples: Samples,
    chosen: NDArray[np.int64],
    near: Found,
    verifier: Verifier,
    settings: DuplicateSettings,
    fresh: NDArray[np.bool_] | None = None,
) -> Found:
    """Verified pairs among the nearest embeddings; distance = 1 - cosine. `fresh`: near_pairs."""
    chosen = chosen[present[chosen]]
    if len(chosen) < 2:
        return Found(np.empty((0, 2), np.int64), np.empty(0, np.float32))
    least = settings.embedding_similarity
    assert least is not None
    rows, squared = nearest_vectors(
        vectors[chosen], settings.neighbours, threads=settings.duplicate_threads
    )
    first, slot = np.nonzero((rows >= 0) & (1 - squared / 2 >= least))
    candidates = unique_pairs(chosen[first], chosen[rows[first, slot]])
    if fresh is not None:
        candidates = candidates[fresh[candidates].any(axis=1)]
    known = _member(candidates, near.pairs, len(samples))
    unknown = candidates[~known]
    confirmed = [
        verifier.copies(verifier.worthwhile(unknown[:, 0], unknown[:, 1], 0.0, mirrored), mirrored)
        for mirrored in (False, True)
    ]
    pairs = unique_pairs(*np.concatenate([candidates[known], *confirmed]).T)
    cosine = np.einsum("pd,pd->p", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    return Found(pairs, np.clip(1 - cosine, 0, 2).astype(np.float32))


class Verifier:
    """Decides candidate pairs on the pixels."""

    block = 4096

    def __init__(self, samples: Samples, settings: DuplicateSettings) -> None:
        self.samples, self.settings = samples, settings

    def worthwhile(
        self, first: NDArray[np.int64], second: NDArray[np.int64], crop: float, mirrored: bool
    ) -> Pairs:
        """The pairs in which `first`, cropped and mirrored, looks roughly like `second`."""
        kept = [np.empty((0, 2), np.int64)]
        for start in range(0, len(first), self.block):
            a, b = first[start : start + self.block], second[start : start + self.block]
            rough = coarse_difference(self._seen(a, mirrored), self._seen(b), crop)
            kept.append(np.stack([a, b], axis=1)[rough < COARSE_LIMIT])
        return np.concatenate(kept)

    def copies(self, pairs: Pairs, mirrored: bool) -> Pairs:
        """The pairs that are copies once one of the two is (or is not) mirrored."""
        kept = [np.empty((0, 2), np.int64)]
        for start in range(0, len(pairs), self.block):
            some = pairs[start : start + self.block]
            agreement = compare(self._seen(some[:, 0], mirrored), self._seen(some[:, 1]))
            good = self._accept(agreement)
            kept.append(some[good])
        return np.concatenate(kept)

    def _accept(self, agreement: Agreement) -> NDArray[np.bool_]:
        """Within the settings' limits, or twice as far off where both pictures are busy.

        A photograph full of detail cannot agree by chance, but its thumbnail also resamples less
        exactly; a plain scene of few objects agrees by chance as soon as one limit is loosened.
        """
        limits = self.settings
        leniency = np.where(agreement.busy >= BUSY, 2, 1)
        return np.asarray(
            (agreement.difference <= leniency * limits.copy_difference)
            & (agreement.worst <= leniency * limits.copy_worst)
            & (1 - agreement.detail <= leniency * (1 - limits.copy_detail))
        )

    def _seen(self, rows: NDArray[np.int64], mirrored: bool = False) -> NDArray[np.uint8]:
        thumbnails = self.samples.thumbnails.take(rows)
        return thumbnails[:, :, ::-1] if mirrored else thumbnails


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
