"""What the 8 x 8 cells of small pictures hold: fine structure, corners, differences of colour.

Luma comes at 64 x 64 points, so a cell has 8 x 8; colour at 16 x 16, 2 x 2 a cell. All functions
take P pictures or pairs at once, in 8-bit levels, and cost a fraction of registering them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.verify.registration import Floats, inside, smooth, warp
from curate.pictures.perceptual_hashes import COLOUR_SIDE, LUMA_SIDE

CELLS = 8
"""Cells along a side."""
CORNER = 2.0
"""Mean squared slope across the weaker direction, levels squared, from which a cell has corners."""
GREY = 8.0
"""Colour that a picture must reach somewhere, or it is grey and its colours say nothing."""
_FLAT_RANGE = 2.0


def summed(values: Floats) -> Floats:
    """Sums over cells: (P, 64, 64) -> (P, 8, 8)."""
    fold = LUMA_SIDE // CELLS
    rows = values.reshape(-1, CELLS, fold, LUMA_SIDE).sum(axis=2, dtype=np.float32)
    return np.asarray(rows.reshape(-1, CELLS, CELLS, fold).sum(axis=3))


def spread_out(cells: Floats) -> Floats:
    """Each cell's number at each of its points: (P, 8, 8) -> (P, 64, 64)."""
    fold = LUMA_SIDE // CELLS
    return cells.repeat(fold, axis=1).repeat(fold, axis=2)


def fine_structure(pictures: Floats) -> Floats:
    """Structure finer than about four points."""
    return pictures - smooth(smooth(smooth(smooth(pictures))))


def variance(pictures: Floats, mask: Floats) -> Floats:
    """(P,) variance of luma under the mask, at least 16."""
    count = np.maximum(mask.sum(axis=(1, 2)), 1)
    mean = (pictures * mask).sum(axis=(1, 2)) / count
    around = (pictures - mean[:, None, None]) * mask
    return np.maximum((around**2).sum(axis=(1, 2)) / count, 16)


def flat_share(luma: Floats) -> Floats:
    """(P,) share of points whose neighbourhood of 3 x 3 spans at most two levels."""
    import cv2

    window = np.ones((3, 3), np.uint8)
    spans = [cv2.dilate(picture, window) - cv2.erode(picture, window) for picture in luma]
    return np.array([(span <= _FLAT_RANGE + 0.01).mean() for span in spans], np.float32)


def cornered_share(pictures: Floats) -> Floats:
    """(P,) share of cells with structure in two directions, of smoothed luma (P, 64, 64).

    Measured by the smaller eigenvalue of the cell's structure tensor (Shi and Tomasi, "Good
    Features to Track", 1994). A straight edge, a stripe or a gradient has structure in one
    direction: it slides along itself, and says as little about where it lies as a flat cell does.
    """
    slope_y, slope_x = np.gradient(pictures, axis=(1, 2))
    points = (LUMA_SIDE // CELLS) ** 2
    xx, yy, xy = (
        summed(np.asarray(product, np.float32)) / points
        for product in (slope_x * slope_x, slope_y * slope_y, slope_x * slope_y)
    )
    weaker = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return np.asarray((weaker > CORNER).mean(axis=(1, 2)), np.float32)


def colour_contrast(colour: Floats) -> Floats:
    """(P,) standard deviation of colour (P, 2, 16, 16), both differences together, at least 4."""
    return np.asarray(np.sqrt(np.maximum(colour.var(axis=(2, 3)).sum(axis=1), 16)), np.float32)


def colour_difference(
    colour_a: Floats, colour_b: Floats, pose: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Squared difference of colour (P, 8, 8), saturation apart, and whether both have colour."""
    planes = [warp(np.ascontiguousarray(colour_a[:, plane]), pose) for plane in (0, 1)]
    warped = np.stack(planes, axis=1)
    mask = inside(pose, COLOUR_SIDE)[:, None]
    every = (1, 2, 3)
    count = np.maximum(2 * mask.sum(axis=every), 1)
    power_a = (warped * warped * mask).sum(axis=every) / count
    product = (warped * colour_b * mask).sum(axis=every) / count
    gain = np.clip(product / np.maximum(power_a, 1), 0, 1.8)[:, None, None, None]
    difference = ((gain * warped - colour_b) ** 2 * mask).sum(axis=1)
    fold = COLOUR_SIDE // CELLS
    cells = difference.reshape(-1, CELLS, fold, CELLS, fold).mean(axis=(2, 4))
    strongest = [np.abs(x).max(axis=every) for x in (colour_a, colour_b)]
    return cells, np.minimum(*strongest) > GREY
