"""Which row of the index stands at which place of the stream: a function of (seed, step) alone.

An order of n rows is no list but a keyed bijection of 0..n-1 (a Feistel network on the bits of n,
walked until it falls below n: Black and Rogaway 2002), a fresh one every epoch. It costs the same
memory at a thousand and at a billion rows, resumes anywhere, and every rank computes its own share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.store.caption_blend import hash_bits, hash_uniform, splitmix
from train.data.index import Bucket

_ROUNDS = 6
# Streams of hashes, apart from those of curate.store.caption_blend.
_ROWS, _BLOCKS, _SHIFT, _BATCHES, _OFFSET = 20, 21, 22, 23, 24
REPEAT = 1 << 32
"""Where weights show a row several times in an epoch, each time counts as an epoch of its own for
the draws of captions and crops: the epoch plus so much a repeat."""

_Ints = NDArray[np.int64]


class DataOrder:
    """The order of a run.

    An epoch shows every row once; with weights, a row of weight w the floor or the ceiling of its
    share of as many draws (systematic resampling). Batches go on across the ends of epochs, so
    nothing is left out. With several buckets each batch is of one bucket, and a bucket has as many
    batches as its rows fill.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        batch_size: int,
        seed: int,
        block: int = 0,
        cumulative_weights: NDArray[np.float64] | None = None,
    ) -> None:
        """
        Args:
            buckets: rows [start, stop) of each, one behind the other.
            batch_size: rows of a step, of all ranks together.
            block: consecutive rows that are shuffled among themselves, and the blocks as wholes,
                so that few shards are read at a time; 0 = all rows.
            cumulative_weights: (N,) running sums, perhaps memory-mapped; None = all rows alike.
        """
        self.buckets, self.batch_size, self.seed, self.block = buckets, batch_size, seed, block
        self.samples = sum(bucket.stop - bucket.start for bucket in buckets)
        self._cumulative = cumulative_weights
        sizes = np.array([bucket.stop - bucket.start for bucket in buckets], np.int64)
        self._below = np.zeros(len(buckets))
        self._total = sizes.astype(np.float64)
        if cumulative_weights is not None:
            ends = np.array([cumulative_weights[bucket.stop - 1] for bucket in buckets])
            self._below = np.concatenate([[0.0], ends[:-1]])
            self._total = ends - self._below
            share = self._total / self._total.sum()
            sizes = np.where(share > 0, np.maximum(np.rint(share * self.samples), 1), 0)
        self._draws = sizes.astype(np.int64)
        """Of each bucket in an epoch."""

    def batch(self, step: int) -> tuple[_Ints, _Ints]:
        """Rows (B,) of the index and epochs (B,) of the batch at `step`, from 0."""
        bucket, number = (0, step) if len(self.buckets) == 1 else self._bucket_of(step)
        draws = int(self._draws[bucket])
        place = number * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs = place // draws
        rows, visits = np.empty_like(place), epochs.copy()
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            at = self._shuffled(place[here] % draws, draws, epoch, bucket)
            if self._cumulative is None:
                rows[here] = at + self.buckets[bucket].start
            else:
                rows[here], repeats = self._weighted(at, epoch, bucket)
                visits[here] += repeats * REPEAT
        return rows, visits

    # ---- several buckets ----------------------------------------------------------------------

    def _bucket_of(self, step: int) -> tuple[int, int]:
        """Which bucket a step is of, and which batch of that bucket's stream it is."""
        epoch = max(step * self.batch_size // int(self._draws.sum()), 0)
        while self._batches_before(epoch + 1).sum() <= step:
            epoch += 1
        before = self._batches_before(epoch)
        own = self._batches_before(epoch + 1) - before
        place = np.array([step - int(before.sum())], np.int64)
        slot = int(_permuted(place, int(own.sum()), self._key(epoch, 0, _BATCHES))[0])
        ends = np.cumsum(own)
        bucket = int(np.searchsorted(ends, slot, "right"))
        return bucket, int(before[bucket] + slot - (ends[bucket] - own[bucket]))

    def _batches_before(self, epoch: int) -> _Ints:
        return epoch * self._draws // self.batch_size

    # ---- one bucket ---------------------------------------------------------------------------

    def _shuffled(self, place: _Ints, count: int, epoch: int, bucket: int) -> _Ints:
        """Where the places of an epoch lie among 0..count-1."""
        if not 0 < self.block < count:
            return _permuted(place, count, self._key(epoch, bucket, _ROWS))
        # Blocks start elsewhere each epoch, and what does not fill one stands at the epoch's end.
        shift = int(hash_bits(_ONE, epoch, self.seed + bucket, _SHIFT)[0] % np.uint64(count))
        whole = count // self.block
        number, within = place // self.block, place % self.block
        at = np.empty_like(place)
        for block in np.unique(number).tolist():
            here = number == block
            size = min(self.block, count - block * self.block)
            key = self._key(epoch * (whole + 1) + block, bucket, _ROWS)
            moved = np.array([block], np.int64)
            if block < whole:
                moved = _permuted(moved, whole, self._key(epoch, bucket, _BLOCKS))
            at[here] = moved[0] * self.block + _permuted(within[here], size, key)
        return (at + shift) % count

    def _weighted(self, at: _Ints, epoch: int, bucket: int) -> tuple[_Ints, _Ints]:
        """Rows of the draws `at`, and how often each was drawn before in this epoch."""
        assert self._cumulative is not None
        own = self.buckets[bucket]
        cumulative = self._cumulative[own.start : own.stop]
        draws, total = int(self._draws[bucket]), float(self._total[bucket])
        offset = float(hash_uniform(_ONE, epoch, self.seed + bucket, _OFFSET)[0])
        below = float(self._below[bucket])
        points = below + (at + offset) * (total / draws)
        last = np.nextafter(below + total, below)
        inside = np.searchsorted(cumulative, np.minimum(points, last), "right")
        before = np.where(inside > 0, cumulative[np.maximum(inside - 1, 0)], below)
        first = np.ceil((before - below) * (draws / total) - offset).astype(np.int64)
        return inside + own.start, np.maximum(at - np.maximum(first, 0), 0)

    def _key(self, epoch: int, bucket: int, stream: int) -> np.uint64:
        return np.uint64(hash_bits(np.array([bucket], np.uint64), epoch, self.seed, stream)[0])


_ONE = np.ones(1, np.uint64)


def _permuted(place: _Ints, count: int, key: np.uint64) -> _Ints:
    """The images (B,) of places (B,) in 0..count-1 under the bijection that `key` chooses."""
    half = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    keys = splitmix(splitmix(key) ^ np.arange(_ROUNDS, dtype=np.uint64))
    at = _feistel(place.astype(np.uint64), half, keys)
    while (outside := at >= np.uint64(count)).any():
        at[outside] = _feistel(at[outside], half, keys)
    return at.astype(np.int64)


def _feistel(
    x: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (splitmix(right ^ key) & mask)
    return np.asarray(left << half | right)
