"""Fingerprints of pictures: perceptual hashes of several views, and a small picture to verify with.

The perceptual hash is pHash: the lowest 8 x 8 coefficients of the discrete cosine transform of the
grey picture at 32 x 32 points, each against their median (after Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010). All of it is linear until that comparison,
so a view (the picture, its mirror image, a centre crop) is one matrix M of 8 rows: area-average the
view to 32 points, then the DCT. The coefficients of a batch are M @ canvas @ M.T.

Why several views: pHash stands re-encoding, resizing and mild changes of light, but mirroring gives
unrelated bits, and cropping costs many. A copy b of a is found by comparing the plain hash of one
with every view of the other: b's mirror image looks like a, or a's centre looks like b.

The small picture is for curate.duplicates.verify: hashes and descriptors only propose. Luma carries
the detail and is kept at 64 x 64 points, colour at 16 x 16: 4.5 KB a sample.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from curate.pictures.decode import CANVAS

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
LUMA_SIDE, COLOUR_SIDE = 64, 16
"""Sides of the small picture's luma and of its two colour differences, in points."""
THUMBNAIL = LUMA_SIDE**2 + 2 * COLOUR_SIDE**2
"""Bytes of a small picture."""

_POINTS = 32
_FREQUENCIES = 8
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BLUE, _RED = 0.564, 0.713
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
    """(B, 128, 128, 3) uint8 -> (B, 4608) uint8: luma, then blue and red difference (BT.601)."""
    count, fold = len(canvas), CANVAS // LUMA_SIDE
    # Rows first: long contiguous sums, several times faster than both axes at once.
    rows = canvas.reshape(-1, LUMA_SIDE, fold, CANVAS * 3).sum(axis=2, dtype=np.uint16)
    sums = rows.reshape(-1, LUMA_SIDE, LUMA_SIDE, fold, 3).sum(axis=3, dtype=np.uint16)
    rgb = sums.astype(np.float32) / fold**2
    luma = rgb @ _LUMA
    fold = LUMA_SIDE // COLOUR_SIDE
    shape = (-1, COLOUR_SIDE, fold, COLOUR_SIDE, fold)
    red, blue, grey = (
        plane.reshape(shape).mean(axis=(2, 4)) for plane in (rgb[..., 0], rgb[..., 2], luma)
    )
    colour = np.stack([_BLUE * (blue - grey), _RED * (red - grey)], axis=1) + 128
    planes = [luma.reshape(count, LUMA_SIDE**2), colour.reshape(count, 2 * COLOUR_SIDE**2)]
    return np.clip(np.concatenate(planes, axis=1) + 0.5, 0, 255).astype(np.uint8)


def unpacked(
    thumbnails: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(B, 4608) uint8 -> luma (B, 64, 64), 0 to 255, and colour (B, 2, 16, 16), 0 for grey."""
    luma = thumbnails[:, : LUMA_SIDE**2].reshape(-1, LUMA_SIDE, LUMA_SIDE)
    colour = thumbnails[:, LUMA_SIDE**2 :].reshape(-1, 2, COLOUR_SIDE, COLOUR_SIDE)
    return luma.astype(np.float32), colour.astype(np.float32) - 128


def mirrored(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, 4608) uint8: the small pictures of the mirror images."""
    luma = thumbnails[:, : LUMA_SIDE**2].reshape(-1, LUMA_SIDE, LUMA_SIDE)
    colour = thumbnails[:, LUMA_SIDE**2 :].reshape(-1, 2, COLOUR_SIDE, COLOUR_SIDE)
    sizes = (LUMA_SIDE**2, 2 * COLOUR_SIDE**2)
    turned = [
        plane[..., ::-1].reshape(len(thumbnails), size)
        for plane, size in zip((luma, colour), sizes, strict=True)
    ]
    return np.concatenate(turned, axis=1)


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
