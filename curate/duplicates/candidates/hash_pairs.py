"""Pairs of samples whose perceptual hashes are near, through several views, crowds bounded.

A crowd is a hash that many samples share: blank scans, one layout of a form. Its members say
little about each other, and all pairs of them and of their neighbours would be quadratic. So equal
hashes are one entry of the join, and a row that comes near an entry meets its `LEADERS` best
members; the rest of the entry meets the `LEADERS` best of all rows that came near it. Rows stand in
order of quality, so these are the ones that the others would be dropped for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

LEADERS = 16
_EXPAND = 1 << 20
_BLOCK = 1 << 17

Rows = NDArray[np.int64]


def near_hashes(
    plain: NDArray[np.uint64],
    seen: NDArray[np.uint64],
    radius: int,
    fresh: NDArray[np.bool_] | None = None,
    threads: int = 1,
    memory: int | None = None,
) -> Iterator[tuple[Rows, Rows]]:
    """Rows (a, b), a != b, for which seen[a] and plain[b] differ in at most `radius` bits.

    In blocks, each pair once. Linear in N (see curate.duplicates.candidates.hamming), whatever the
    hashes.

    Args:
        plain: (N,) hashes of the samples as they are; seen: (N,) of one view of them.
        fresh: (N,) rows that are new: only pairs with at least one of them. New rows ask all, and
            old rows ask the new ones, so the cost is one pass over the old and a join of the new.
        memory: see join_blocks; the hashes themselves come on top.
    """
    every = np.arange(len(plain))
    if fresh is None:
        blocks = _near(plain, every, seen, every, radius, threads, memory)
    else:
        new, old = np.flatnonzero(fresh), np.flatnonzero(~fresh)
        blocks = chain(
            _near(plain, every, seen, new, radius, threads, memory),
            _near(plain, new, seen, old, radius, threads, memory),
        )
    # A table often gives a handful of pairs; whoever takes them works on many at a time.
    held: list[tuple[Rows, Rows]] = []
    for block in blocks:
        held.append(block)
        if sum(len(first) for first, _ in held) >= _BLOCK:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(blocks: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    first, second = zip(*blocks, strict=True)
    return np.concatenate(first), np.concatenate(second)


def _near(
    plain: NDArray[np.uint64],
    index: Rows,
    seen: NDArray[np.uint64],
    asking: Rows,
    radius: int,
    threads: int,
    memory: int | None,
) -> Iterator[tuple[Rows, Rows]]:
    # Here and not above: the compiler behind it costs every command a second to import.
    from curate.duplicates.candidates.hamming import distinct, join_blocks

    hashes, rows, start = distinct(plain[index])
    queries, query_rows, query_start = distinct(seen[asking])
    rows, query_rows = index[rows], asking[query_rows]
    sizes, query_sizes = np.diff(start), np.diff(query_start)
    crowds: list[Rows] = []
    for query, row, _ in join_blocks(hashes, queries, radius, threads, memory):
        many, of = query_sizes[query], sizes[row]
        first = query_start[query]
        yield from _members(query_rows, first, many, rows, start[row], np.minimum(of, LEADERS))
        for place in np.flatnonzero(of > LEADERS):
            near = query_rows[first[place] : first[place] + min(many[place], LEADERS)]
            crowds.append(np.stack([np.full(len(near), row[place]), near]))
    if crowds:
        entry, near = np.concatenate(crowds, axis=1)
        order = np.lexsort((near, entry))
        entry, near = entry[order], near[order]
        best = np.arange(len(entry)) - np.searchsorted(entry, entry) < LEADERS
        entry, near = entry[best], near[best]
        rest = start[entry] + LEADERS
        single = np.arange(len(near))
        yield from _members(near, single, np.ones_like(near), rows, rest, start[entry + 1] - rest)


def _members(
    first_rows: Rows,
    first_start: Rows,
    first_count: Rows,
    second_rows: Rows,
    second_start: Rows,
    second_count: Rows,
) -> Iterator[tuple[Rows, Rows]]:
    """Every member of the first entry with every one of the second, entry by entry."""
    sizes = first_count * second_count
    ends = np.cumsum(sizes)
    at = 0
    while at < len(sizes):
        done = int(ends[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, done + _EXPAND, side="right")))
        entry = np.repeat(np.arange(at, stop), sizes[at:stop])
        number = np.arange(len(entry)) - (ends[entry] - sizes[entry] - done)
        first = first_rows[first_start[entry] + number // second_count[entry]]
        second = second_rows[second_start[entry] + number % second_count[entry]]
        other = first != second
        yield first[other], second[other]
        at = stop
