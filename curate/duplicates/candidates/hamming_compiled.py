"""The inner loops of the Hamming join, compiled by numba when they first run (and cached).

Apart from curate.duplicates.candidates.hamming, so that a search of few hashes loads no compiler.
`first`, `width`, `chosen`: first bit and width of every band, and the bands of this
table's key. `low`, `high`: the range of keys that are looked at.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, inline="always")
def _bits(x):  # type: ignore[no-untyped-def]
    """Number of set bits of a uint64; the compiler knows this form and emits one instruction."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@numba.njit(cache=True, nogil=True, inline="always")
def _key(x, first, width, chosen):  # type: ignore[no-untyped-def]
    key = np.uint64(0)
    for band in chosen:
        mask = (np.uint64(1) << np.uint64(width[band])) - np.uint64(1)
        key = (key << np.uint64(width[band])) | ((x >> np.uint64(first[band])) & mask)
    return np.int64(key)


@numba.njit(cache=True, nogil=True)
def by_band(hashes, base, first, width):  # type: ignore[no-untyped-def]
    """Hashes and row numbers (counted from `base`) by the value of one band, otherwise in order."""
    shift, mask = np.uint64(first), (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    start = np.zeros((1 << width) + 1, np.int64)
    for x in hashes:
        start[np.int64((x >> shift) & mask) + 1] += 1
    start = np.cumsum(start)
    ordered, rows = np.empty_like(hashes), np.empty(len(hashes), np.int32)
    for i in range(len(hashes)):
        value = np.int64((hashes[i] >> shift) & mask)
        at = start[value]
        ordered[at], rows[at] = hashes[i], base + i
        start[value] = at + 1
    return ordered, rows


@numba.njit(cache=True, nogil=True)
def count_all(hashes, first, width, chosen, low, high, start):  # type: ignore[no-untyped-def]
    for x in hashes:
        key = _key(x, first, width, chosen)
        if low <= key < high:
            start[key - low + 2] += 1


@numba.njit(cache=True, nogil=True)
def place_all(  # type: ignore[no-untyped-def]
    part, part_rows, first, width, chosen, low, high, start, hashes, rows
):
    for i in range(len(part)):
        key = _key(part[i], first, width, chosen)
        if low <= key < high:
            at = start[key - low + 1]
            hashes[at], rows[at] = part[i], part_rows[i]
            start[key - low + 1] = at + 1


@numba.njit(cache=True, nogil=True)
def look_up(  # type: ignore[no-untyped-def]
    queries, query_rows, at, offset, radius, first, width, chosen, low, high,
    start, hashes, rows, pairs, apart,
):  # fmt: skip
    """Fill `pairs` from query `at`, hash `offset` of its bucket; say where to go on."""
    found = 0
    limit = np.uint64(radius)
    for query in range(at, len(queries)):
        x = queries[query]
        key = _key(x, first, width, chosen) - low
        if 0 <= key < high - low:
            for slot in range(start[key] + offset, start[key + 1]):
                difference = x ^ hashes[slot]
                bits = _bits(difference)
                if bits <= limit and _lowest(difference, first, width, chosen):
                    if found == len(apart):
                        return query, slot - start[key], found
                    pairs[0, found], pairs[1, found] = query_rows[query], rows[slot]
                    apart[found] = bits
                    found += 1
        offset = 0
    return len(queries), 0, found


@numba.njit(cache=True, nogil=True)
def _lowest(difference, first, width, chosen):  # type: ignore[no-untyped-def]
    """Whether no equal band below the last of this table's is missing from it."""
    place = 0
    for band in range(chosen[-1]):
        if band == chosen[place]:
            place += 1
            continue
        mask = (np.uint64(1) << np.uint64(width[band])) - np.uint64(1)
        if not ((difference >> np.uint64(first[band])) & mask):
            return False
    return True


@numba.njit(cache=True, nogil=True)
def compare(small, large, limit):  # type: ignore[no-untyped-def]
    found = 0
    for x in small:
        for y in large:
            found += _bits(x ^ y) <= limit
    a, b, apart = np.empty(found, np.int64), np.empty(found, np.int64), np.empty(found, np.uint8)
    at = 0
    for i in range(len(small)):
        for j in range(len(large)):
            bits = _bits(small[i] ^ large[j])
            if bits <= limit:
                a[at], b[at], apart[at] = i, j, bits
                at += 1
    return a, b, apart
