"""All pairs of 64-bit hashes within a few bits: an exact join, never all pairs.

Cut the 64 bits into m bands. Two hashes that differ in at most r bits differ in at most r bands, so
at least k = m - r bands are equal: whichever they are, one of the C(m, k) tables that are keyed by
k bands each puts the two into one bucket (the pigeonhole argument of multi-index hashing: Norouzi,
Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012; keys of
several bands: Manku, Jain and Das Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007).
Everything within the radius is found and nothing else. A pair that meets in several tables is
reported once: by the table of its lowest equal bands.

A table is one counting sort of the index by key, so a bucket is contiguous and comparing with it is
a scan at about a nanosecond a hash. Tables are made one after the other; only one is in memory.
For r = 8 there are 165 tables with keys of 17 to 18 bits: a query costs 165 look-ups whatever N is,
and N / 1,100 comparisons for random hashes. The look-ups dominate up to several million hashes;
above `_MANY` a twelfth band (495 tables, 21 bits) keeps it so.

Equal hashes (blank scans, one layout a million times) would fill a bucket with themselves; the
caller collapses them first (`distinct`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.settings import MAX_RADIUS

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]
Block = tuple[Rows, Rows, NDArray[np.uint8]]
"""Query rows, index rows, bits apart."""

_BITS = 64
_MANY = 4_000_000
"""Index size from which tables are keyed by one band more."""
_FEW = 1 << 25
"""Comparisons up to which doing them all costs less than making the tables."""
_READ = 1 << 20
_BLOCK = 1 << 18
_QUERIES, _LEAST = 1 << 23, 1 << 16
"""Queries at a time: without a bound on memory, and however little there is."""
_BYTES = 12
"""Of a hash with its row number."""


@dataclass(frozen=True)
class Bands:
    """Cuts of the 64 bits: first bit and width (m,) of each, and how many must be equal."""

    first: NDArray[np.int64]
    width: NDArray[np.int64]
    equal: int

    @classmethod
    def of(cls, total: int, radius: int) -> Bands:
        """For an index of `total` hashes: as few bands as keep the keys longer than log2 of it."""
        equal = 4 if total > _MANY else 3
        # A small radius needs few bands, and fewer of those make a key that is long enough.
        while equal > 1 and _BITS * (equal - 1) / (radius + equal - 1) >= 17:
            equal -= 1
        edges = np.linspace(0, _BITS, radius + equal + 1).astype(np.int64)
        return cls(edges[:-1], np.minimum(np.diff(edges), 22), equal)

    def tables(self) -> list[NDArray[np.int64]]:
        """The bands that key each table."""
        numbers = range(len(self.first))
        return [np.array(chosen, np.int64) for chosen in combinations(numbers, self.equal)]


def join_blocks(
    index: Hashes, queries: Hashes, radius: int, threads: int = 1, memory: int | None = None
) -> Iterator[Block]:
    """All pairs within `radius` bits, each once, in blocks; the order is not that of the rows.

    Args:
        index: (N,); queries: (Q,), arrays or memory maps.
        threads: tables that are worked on side by side.
        memory: bytes that tables and queries in memory may take, 12 for each hash; None for
            `_QUERIES` queries and the whole index. Where that is too little, queries come in
            chunks, and each table is made in parts by ranges of its key: more reading, equal pairs.

    Raises:
        ValueError: a radius that is not in 0..11.
    """
    from curate.duplicates.candidates import hamming_compiled as compiled

    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius is {radius}; it must lie in 0..{MAX_RADIUS}.")
    if not len(index) or not len(queries):
        return
    if len(index) * len(queries) <= _FEW:
        yield from _all(index, queries, radius)
        return
    bands = Bands.of(len(index), radius)
    half = (memory or 0) // 2
    chunk = _QUERIES if memory is None else max(_LEAST, half // _BYTES)
    parts = 1 if memory is None else -(-len(index) * _BYTES * threads // max(half, 1))
    with ThreadPoolExecutor(threads) as pool:
        for band in range(len(bands.first) - bands.equal + 1):
            tables = [chosen for chosen in bands.tables() if chosen[0] == band]
            for start in range(0, len(queries), chunk):
                part = np.ascontiguousarray(queries[start : start + chunk])
                part, rows = compiled.by_band(
                    part, start, int(bands.first[band]), int(bands.width[band])
                )
                jobs = (
                    (index, part, rows, radius, bands, chosen, low, high)
                    for chosen in tables
                    for low, high in _ranges(1 << int(bands.width[chosen].sum()), parts)
                )
                if threads == 1:
                    for job in jobs:
                        yield from _table(*job)
                    continue
                while some := list(islice(jobs, threads)):
                    done = [pool.submit(lambda job: list(_table(*job)), job) for job in some]
                    for future in done:
                        yield from future.result()


def distinct(hashes: Hashes) -> tuple[Hashes, Rows, Rows]:
    """Each different hash once, and where its rows are.

    Returns:
        (U,) hashes, sorted; (N,) all rows ordered by hash and then by number; (U + 1,) the place in
        that order where the rows of each hash start.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(hashes)])
    return ordered[starts], order, np.append(starts, len(hashes))


def _ranges(slots: int, parts: int) -> list[tuple[int, int]]:
    edges = np.unique(np.linspace(0, slots, min(parts, slots) + 1).astype(np.int64)).tolist()
    return list(pairwise(edges))


def _table(
    index: Hashes,
    queries: Hashes,
    query_rows: NDArray[np.int32],
    radius: int,
    bands: Bands,
    chosen: NDArray[np.int64],
    low: int,
    high: int,
) -> Iterator[Block]:
    """The pairs of one table, keys low <= key < high. `queries` are sorted by the first band.

    So is each block of the index: then all look-ups with one value of that band, the leading bits
    of the key, fall into one part of the table, which stays in the processor's cache.
    """
    from curate.duplicates.candidates import hamming_compiled as compiled

    cut = bands.first, bands.width, chosen, low, high
    start = np.zeros(high - low + 2, np.int32)
    for first in range(0, len(index), _READ):
        compiled.count_all(np.ascontiguousarray(index[first : first + _READ]), *cut, start)
    np.cumsum(start, out=start)
    hashes = np.empty(start[-1], np.uint64)
    rows = np.empty(start[-1], np.int32)
    leading = int(bands.first[chosen[0]]), int(bands.width[chosen[0]])
    for first in range(0, len(index), _READ):
        part = np.ascontiguousarray(index[first : first + _READ])
        part, numbers = compiled.by_band(part, first, *leading)
        compiled.place_all(part, numbers, *cut, start, hashes, rows)
    pairs, apart = np.empty((2, _BLOCK), np.int64), np.empty(_BLOCK, np.uint8)
    at, offset = 0, 0
    while at < len(queries):
        at, offset, found = compiled.look_up(
            queries, query_rows, at, offset, radius, *cut, start, hashes, rows, pairs, apart
        )
        if found:
            yield pairs[0, :found].copy(), pairs[1, :found].copy(), apart[:found].copy()


def _all(index: Hashes, queries: Hashes, radius: int) -> Iterator[Block]:
    """Every query with every hash, where they are few."""
    from curate.duplicates.candidates import hamming_compiled as compiled

    swapped = len(queries) < len(index)
    small, large = (queries, index) if swapped else (index, queries)
    small = np.ascontiguousarray(small)
    for first in range(0, len(large), _READ):
        a, b, apart = compiled.compare(
            small, np.ascontiguousarray(large[first : first + _READ]), np.uint64(radius)
        )
        b += first
        yield (a, b, apart) if swapped else (b, a, apart)
