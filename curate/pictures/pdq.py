"""PDQ, the perceptual hash of industry's lists of known pictures: computed, and looked up near.

A picture's luma is smoothed, sampled at 64 x 64 points and transformed; each of the 256 bits tells
whether one of 16 x 16 low frequencies is above their median. Pictures of one origin differ in few
bits (31 is the distance that its authors advise), unrelated ones in about 128.

Davis and Rosen, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm" (2019);
github.com/facebook/ThreatExchange, pdq/cpp/{hashing/pdqhashing,downscaling/downscaling}.cpp.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from curate.pictures.shrink import shrink

Pixels = NDArray[np.uint8]

WORST_QUALITY = 50
"""Hashes of pictures below this (0 to 100) match anything plain; their authors discard them."""
MOST_DISTANCE = 31
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SIDE, _FREQUENCIES = 64, 16
# Larger pictures are averaged down first, as the reference program does at 512.
_LARGEST = 1024
_PARTS = 16  # of 16 bits: of two hashes within 31 bits, one part differs in at most one


def pdq_hash(pixels: Pixels) -> tuple[Pixels, int]:
    """(32 bytes in the order of the hexadecimal form, quality 0 to 100) of (H, W, 3) or (H, W, 1)
    sRGB. A picture with a side below 5 px has quality 0.
    """
    luma = _luma(pixels)
    if luma is None:
        return np.zeros(32, np.uint8), 0
    small = _sampling(luma.shape[0]) @ luma @ _sampling(luma.shape[1]).T
    return _bits(small), _quality(small)


def turned_hashes(pixels: Pixels) -> tuple[list[Pixels], int]:
    """The same of the picture in its eight postures, upright first: quarter turns, and their mirror
    images. (Reckoned from one transform, by signs, they would be off by up to 40 bits: the points
    are not taken alike from both ends.)
    """
    luma = _luma(pixels)
    if luma is None:
        return [np.zeros(32, np.uint8)] * 8, 0
    rows, columns = (_sampling(length) for length in luma.shape)
    smalls = [(one @ luma) @ other.T for one in _ways(rows) for other in _ways(columns)]
    hashes = [_bits(way) for small in smalls for way in (small, small.T)]
    return hashes, _quality(smalls[0])


def _ways(sampling: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As it is, and of what comes from the other end."""
    return sampling, sampling[:, ::-1]


def _luma(pixels: Pixels) -> NDArray[np.float64] | None:
    """(h, w) of a picture that is not too large; None where it is too small."""
    if min(pixels.shape[:2]) < 5:
        return None
    if max(pixels.shape[:2]) > _LARGEST:
        scale = _LARGEST / 2 / max(pixels.shape[:2])
        height, width = (max(5, round(extent * scale)) for extent in pixels.shape[:2])
        pixels = shrink(pixels, (width, height))
    luma = pixels @ _LUMA if pixels.shape[-1] == 3 else pixels.reshape(pixels.shape[:2])
    return luma.astype(np.float64)


def _quality(small: NDArray[np.float64]) -> int:
    # Summed in whole percents of a step, so that noise counts nothing.
    steps = [np.abs(np.diff(small, axis=axis) * 100 / 255).astype(np.int64) for axis in (0, 1)]
    return min(100, int(sum(step.sum() for step in steps)) // 90)


def _bits(small: NDArray[np.float64]) -> Pixels:
    low = _cosines() @ small @ _cosines().T
    bits = low.ravel() > np.partition(low.ravel(), 127)[127]  # the lower of the two medians
    return np.packbits(bits[::-1])


@lru_cache(maxsize=256)
def _sampling(length: int) -> NDArray[np.float64]:
    """(64, length): two passes of a running mean, of which 64 points are taken."""
    if length == _SIDE:
        return np.eye(_SIDE)
    window = -(-length // (2 * _SIDE))
    half = (window + 2) // 2
    place = np.arange(length)
    first, last = place - (window - half), place + half - 1
    mean = (place >= first[:, None]) & (place <= last[:, None])
    mean = mean / mean.sum(axis=1, keepdims=True)
    taken = ((np.arange(_SIDE) + 0.5) * length / _SIDE).astype(np.int64)
    return np.asarray(mean[taken] @ mean)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """(16, 64): frequencies 1 to 16 of the cosine transform."""
    frequency, place = np.arange(1, _FREQUENCIES + 1), np.arange(_SIDE)
    angle = np.pi / 2 / _SIDE * frequency[:, None] * (2 * place + 1)
    return np.asarray(np.sqrt(2 / _SIDE) * np.cos(angle))


class PdqIndex:
    """N hashes, and which of them is near another; exact up to 31 bits.

    By multi-index hashing (Norouzi et al. 2012): hashes that share a part, or nearly, are compared
    in full. Memory: 96 bytes a hash. A look-up costs well below a millisecond at a million.
    """

    def __init__(self, hashes: NDArray[np.uint8]) -> None:
        """`hashes` (N, 32), N > 0, as pdq_hash gives them."""
        self._hashes = np.ascontiguousarray(hashes)
        parts = np.ascontiguousarray(self._hashes.view(np.uint16).T)
        # A stable sort of 16 bits is by radix: one pass over the hashes.
        self._order = [np.argsort(part, kind="stable").astype(np.uint32) for part in parts]
        counts = [np.bincount(part, minlength=1 << 16) for part in parts]
        self._starts = [np.concatenate([[0], np.cumsum(count)]) for count in counts]

    def __len__(self) -> int:
        return len(self._hashes)

    def nearest(self, asked: NDArray[np.uint8], most: int = MOST_DISTANCE) -> int | None:
        """The distance in bits of the nearest hash; None where none is within `most` (0 to 31)."""
        parts = np.ascontiguousarray(asked).view(np.uint16)
        flips = np.array([0, *(1 << np.arange(16))] if most >= _PARTS else [0], np.uint16)
        found = [
            self._order[part][self._starts[part][value] : self._starts[part][value + 1]]
            for part in range(_PARTS)
            for value in (parts[part] ^ flips).astype(np.int64)
        ]
        candidates = self._hashes[np.concatenate(found)].view(np.uint64)
        if not len(candidates):
            return None
        distance = np.bitwise_count(candidates ^ np.ascontiguousarray(asked).view(np.uint64))
        nearest = int(distance.sum(axis=1, dtype=np.int64).min())
        return nearest if nearest <= most else None
