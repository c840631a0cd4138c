"""Fingerprints of pictures: perceptual hashes of several views, and a small thumbnail.

The perceptual hash is pHash: the lowest 8 x 8 coefficients of the discrete cosine transform of the
grey picture at 32 x 32 points, each against their median (after Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010). All of it is linear until that comparison,
so a view (the picture, its mirror image, a centre crop) is one matrix M of 8 rows: area-average the
view to 32 points, then the DCT. The coefficients of a batch are M @ canvas @ M.T.

Why several views: pHash stands re-encoding, resizing and mild changes of light, but mirroring gives
unrelated bits, and cropping costs many. A copy b of a is found by comparing the plain hash of one
with every view of the other: b's mirror image looks like a, or a's centre looks like b.

The thumbnail is for the verifier (curate.registration): hashes only propose.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from curate.decode import CANVAS

VIEWS: tuple[tuple[float, bool], ...] = (
    (0.0, False),
    (0.0, True),
    (0.05, False),
    (0.10, False),
    (0.15, False),
    (0.05, True),
    (0.10, True),
    (0.15, True),
)
"""Share of each side that a centre crop takes away in all, and whether mirrored. 0 is plain."""
THUMBNAIL = 32
"""Side of the thumbnail in pixels: 3 KB a sample."""

_POINTS = 32
_FREQUENCIES = 8
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BITS = np.uint64(1) << np.arange(_FREQUENCIES**2, dtype=np.uint64)


def perceptual_hashes(canvas: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(B, 128, 128, 3) uint8 -> (B, views) uint64, in the order of VIEWS."""
    luma = canvas @ _LUMA
    hashes = np.empty((len(canvas), len(VIEWS)), np.uint64)
    coefficients: dict[float, NDArray[np.float32]] = {}
    for index, (crop, mirrored) in enumerate(VIEWS):
        if crop not in coefficients:
            project = _projection(crop)
            coefficients[crop] = project @ luma @ project.T
        block = coefficients[crop]
        if mirrored:  # the mirror image's odd horizontal frequencies have the opposite sign
            block = block * _ALTERNATING
        flat = block.reshape(len(block), _FREQUENCIES**2)
        # The first coefficient is the mean: it is far above the rest and would tell nothing.
        median = np.median(flat[:, 1:], axis=1, keepdims=True)
        hashes[:, index] = ((flat > median) * _BITS).sum(axis=1, dtype=np.uint64)
    return hashes


def thumbnails(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, 128, 128, 3) uint8 -> (B, 32, 32, 3) uint8, averaged by area."""
    fold = CANVAS // THUMBNAIL
    # Rows first: long contiguous sums, five times faster than both axes at once.
    rows = canvas.reshape(-1, THUMBNAIL, fold, CANVAS * 3).sum(axis=2, dtype=np.uint16)
    sums = rows.reshape(-1, THUMBNAIL, THUMBNAIL, fold, 3).sum(axis=3, dtype=np.uint16)
    return ((sums + fold * fold // 2) // (fold * fold)).astype(np.uint8)


@lru_cache(maxsize=16)
def _projection(crop: float) -> NDArray[np.float32]:
    """(8, 128): the lowest DCT-II rows of 32 points that average the centre `1 - crop` by area."""
    edges = np.linspace(crop / 2, 1 - crop / 2, _POINTS + 1) * CANVAS
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(CANVAS)[None]
    overlap = np.clip(np.minimum(pixel + 1, high) - np.maximum(pixel, low), 0, None)
    average = overlap / (high - low)
    frequency, point = np.arange(_FREQUENCIES)[:, None], np.arange(_POINTS)[None] + 0.5
    return np.asarray(np.cos(np.pi * frequency * point / _POINTS) @ average, np.float32)


_ALTERNATING = np.where(np.arange(_FREQUENCIES) % 2 == 0, 1, -1).astype(np.float32)
