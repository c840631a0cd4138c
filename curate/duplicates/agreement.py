"""Is b an edited copy of a? Compare what two registered thumbnails show, cell by cell.

The overlap of the two is cut into 8 x 8 cells (of 8 x 8 points). In each, once light and pose are
accounted for, the fine structure of the two (luma without its smoothed self) either correlates
(the cell AGREES), does not (it DIFFERS), or there is none (it says nothing). A cell also differs
when its light or its colour is far off.

Two distinct photographs agree in a few cells by chance, never in most. What is dangerous are
graphics: charts with one frame and other bars, drawings with other labels, screenshots with another
number. An edit is told from a sibling by what differs:

- Where only one of the two has structure, something was laid over the other or cut away (a label,
  a logo, the black corners of a turned picture). That is forgiven to a degree, if it goes one way.
  Siblings each have something that the other lacks.
- Where both have structure and it is not the same, the pictures differ. A photograph, which is rich
  all over, may do so in a few cells (a label hides what was there); a flat graphic may not, because
  that is how it tells its siblings apart.
- Differences at the rim weigh less than those within.
- In a scene of few things on one ground, hardly a cell may differ, and hardly any part of one where
  the copy descriptors, which see the whole, are not alike.

So `disagreement` is a weighed count of differing cells, in units of agreeing ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.fingerprints import COLOUR_SIDE, LUMA_SIDE, mirrored, unpacked
from curate.duplicates.registration import (
    MISFIT_LIMIT,
    Floats,
    inside,
    register,
    relit,
    smooth,
    warp,
)

CELLS = 8
STRUCTURE = 3.0
"""Variance of fine structure (8-bit levels, squared) from which on a cell has any."""
AGREES, DIFFERS = 0.75, 0.5
"""Correlation of fine structure from which a cell agrees, and below which it differs."""
FAR_LIGHT, FAR_COLOUR, FAR_COLOUR_PLAIN = 60.0, 30.0**2, 18.0**2
"""Mean squared difference of luma, and of colour, from which a cell differs in any case."""
RIM, ONE_SIDED = 0.25, 0.25
"""Weights of a cell at the rim, and of one where only one picture has structure."""
GREY = 8.0
"""Colour that a picture must reach somewhere, or it is grey and its colours say nothing."""
_ONE_SIDED_RATIO = 3.0
_BLOCK = 64
_FLAT_RANGE = 2.0

LEAST_CELLS = 4
"""Agreeing cells that a copy needs at the least: a flat picture can be compared with nothing."""
FEW_CELLS, FEW_SHARE = 10, 0.9
"""With fewer agreeing cells than this, this share of the cells must agree."""
RICH, PLAIN = 0.8, 0.4
"""Share of a picture that is not flat from which on it is a photograph full of detail, and below
which it is a scene of few things on one ground."""
SURE, CERTAIN = 0.9, 0.95
"""Cosine of copy descriptors from which on a differing cell of a plain picture may be an edit, and
from which on few agreeing cells are enough evidence."""
EQUAL, EQUAL_MISFIT, EQUAL_RESIDUAL = 0.98, 0.05, 0.05
"""Least cosine, largest misfit and residual of pictures that are equal but for their encoding."""
PLAIN_CELLS, PLAIN_UNSURE_CELLS = 1.25, 0.3
"""Differing cells, weighed, that are allowed in plain pictures, sure or not."""


MAX_COLOUR = 16.0
"""Largest mean difference of colour, in 8-bit levels."""


@dataclass(frozen=True)
class CopyLimits:
    """What counts as a copy. For rich pictures disagreement may be twice, residual 1.5 times."""

    share: float = 0.6
    disagreement: float = 0.125
    residual: float = 0.18


@dataclass(frozen=True)
class Agreement:
    """What P pairs have in common, (P,) each."""

    misfit: Floats
    """Of the coarse registration, 0 to 1; above MISFIT_LIMIT nothing else was computed."""
    agreeing: Floats
    """Cells that agree."""
    share: Floats
    """Agreeing cells over all that have structure and do not differ."""
    disagreement: Floats
    """Differing cells, weighed, over agreeing ones."""
    residual: Floats
    """Difference of luma outside differing cells, root mean square, over the contrast."""
    colour: Floats
    """Difference of colour outside differing cells, root mean square in 8-bit levels."""
    rich: Floats
    """Share of the flatter picture that is not flat."""


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Agreement:
    """Register and compare P pairs of thumbnails, (P, 4608) uint8 each.

    Either may be the crop of the other, and either the mirror image: of the two ways round the one
    that fits better is judged. Memory: 64 pairs at a time.
    """
    parts = [
        _compare(first[start : start + _BLOCK], second[start : start + _BLOCK])
        for start in range(0, max(len(first), 1), _BLOCK)
    ]
    return Agreement(
        *(
            np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(Agreement)
        )
    )


def is_copy(
    found: Agreement, limits: CopyLimits, similarity: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """(P,) whether each compared pair shows one picture.

    Args:
        similarity: (P,) cosine of the two's copy descriptors: a second opinion on plain pictures.
    """
    rich = found.rich >= RICH
    plain, sure = found.rich < PLAIN, similarity >= SURE
    cells = np.where(plain, np.where(sure, PLAIN_CELLS, PLAIN_UNSURE_CELLS), np.inf)
    few = (found.agreeing < FEW_CELLS) & (similarity < CERTAIN)
    share = np.where(few, max(FEW_SHARE, limits.share), limits.share)
    # Too little structure for a vote of cells, but nothing that differs anywhere.
    equal = (found.misfit <= EQUAL_MISFIT) & (found.residual <= EQUAL_RESIDUAL)
    equal &= (similarity >= EQUAL) & (found.disagreement == 0)
    return np.asarray(
        (found.misfit <= MISFIT_LIMIT)
        & ((found.agreeing >= LEAST_CELLS) | equal)
        & ((found.share >= share) | equal)
        & (found.disagreement <= np.where(rich, 2, 1) * limits.disagreement)
        & (found.disagreement * np.maximum(found.agreeing, 1) <= cells)
        & (found.residual <= np.where(rich, 1.5, 1) * limits.residual)
        & (found.colour <= MAX_COLOUR)
    )


def _compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Agreement:
    second_luma, second_colour = unpacked(second)
    turned = mirrored(first)
    ways = [register(unpacked(way)[0], second_luma) for way in (first, turned)]
    other = ways[1].misfit < ways[0].misfit
    chosen = np.where(other[:, None], turned, first)
    pose = np.where(other[:, None, None], ways[1].pose, ways[0].pose)
    misfit = np.minimum(ways[0].misfit, ways[1].misfit)
    going = np.flatnonzero(misfit <= MISFIT_LIMIT)
    out = Agreement(misfit, *(np.zeros(len(first), np.float32) for _ in fields(Agreement)[1:]))
    if not len(going):
        return out
    luma, colour = unpacked(chosen[going])
    measured = _judged(luma, colour, second_luma[going], second_colour[going], pose[going])
    for each, values in zip(fields(Agreement)[1:], measured, strict=True):
        getattr(out, each.name)[going] = values
    return out


def _judged(
    luma_a: Floats, colour_a: Floats, luma_b: Floats, colour_b: Floats, pose: Floats
) -> tuple[Floats, ...]:
    """Everything in Agreement but the misfit."""
    a, b = smooth(luma_a), smooth(luma_b)
    warped, mask = warp(a, pose), inside(pose, LUMA_SIDE)
    model, residual = relit(warped, b, mask, rounds=4)
    # Where one is clipped and the other goes on beyond, there is nothing to compare.
    hidden = (
        ((b > 249) & (model > 232))
        | ((b < 6) & (model < 23))
        | ((warped > 249) & (b > model - 17))
        | ((warped < 6) & (b < model + 17))
    )
    residual = np.where(hidden, 0, residual).astype(np.float32)
    seen = mask * ~hidden
    points = np.maximum(_cells(mask), 1e-3)
    fine_a, fine_b = _fine(model), _fine(b)
    power_a, power_b, product = (
        _cells(x * seen) / points for x in (fine_a * fine_a, fine_b * fine_b, fine_a * fine_b)
    )
    light = _cells(residual**2 * mask) / points
    # Smoothed again: a thin line resampled at another place is no difference.
    broad = _cells(smooth(smooth(residual)) ** 2 * mask) / points
    colour, coloured = _colour_difference(colour_a, colour_b, pose)
    contrast = _variance(b, mask)[:, None, None]

    known = (points >= 40) & (_cells(mask * hidden) < points / 2)
    structured = known & (np.maximum(power_a, power_b) > STRUCTURE)
    correlation = product / np.sqrt((power_a + 1) * (power_b + 1))
    far = known & (light > np.maximum(FAR_LIGHT, 0.12 * contrast))
    rich = 1 - np.maximum(_flat_share(luma_a), _flat_share(luma_b))
    limit = np.where(rich < PLAIN, FAR_COLOUR_PLAIN, FAR_COLOUR)
    far |= known & (colour > limit[:, None, None]) & coloured[:, None, None]
    differs = (structured & (correlation < DIFFERS)) | far
    agrees = structured & (correlation >= AGREES) & ~differs
    agreeing = agrees.sum(axis=(1, 2)).astype(np.float32)
    rest = known & ~differs
    left = np.maximum(rest.sum(axis=(1, 2)), 1)
    return (
        agreeing,
        agreeing / np.maximum((structured & ~differs).sum(axis=(1, 2)), 1),
        _weighed(differs, np.asarray((power_a + 2) / (power_b + 2))) / np.maximum(agreeing, 1),
        np.sqrt((broad * rest).sum(axis=(1, 2)) / left / contrast[:, 0, 0]),
        np.where(coloured, np.sqrt((colour * rest).sum(axis=(1, 2)) / left), 0),
        rich,
    )


def _weighed(differs: NDArray[np.bool_], ratio: NDArray[np.floating]) -> Floats:
    """Differing cells, weighed as the module says. `ratio`: of the two's structure."""
    weight = np.full((CELLS, CELLS), RIM, np.float32)
    weight[1:-1, 1:-1] = 1
    only_a, only_b = differs & (ratio > _ONE_SIDED_RATIO), differs & (ratio < 1 / _ONE_SIDED_RATIO)
    both = differs & ~only_a & ~only_b
    counts = [(cells * weight).sum(axis=(1, 2)) for cells in (only_a, only_b, both)]
    one_way, other_way = np.maximum(counts[0], counts[1]), np.minimum(counts[0], counts[1])
    return np.asarray(counts[2] + other_way + ONE_SIDED * one_way, np.float32)


def _colour_difference(
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


def _fine(pictures: Floats) -> Floats:
    """Structure finer than about four points."""
    return pictures - smooth(smooth(smooth(smooth(pictures))))


def _cells(values: Floats) -> Floats:
    """Sums over cells: (P, 64, 64) -> (P, 8, 8)."""
    fold = LUMA_SIDE // CELLS
    rows = values.reshape(-1, CELLS, fold, LUMA_SIDE).sum(axis=2, dtype=np.float32)
    return np.asarray(rows.reshape(-1, CELLS, CELLS, fold).sum(axis=3))


def _variance(pictures: Floats, mask: Floats) -> Floats:
    count = np.maximum(mask.sum(axis=(1, 2)), 1)
    mean = (pictures * mask).sum(axis=(1, 2)) / count
    around = (pictures - mean[:, None, None]) * mask
    return np.maximum((around**2).sum(axis=(1, 2)) / count, 16)


def _flat_share(luma: Floats) -> Floats:
    """Share of points whose neighbourhood of 3 x 3 spans at most two levels: (P,)."""
    import cv2

    window = np.ones((3, 3), np.uint8)
    spans = [cv2.dilate(picture, window) - cv2.erode(picture, window) for picture in luma]
    return np.array([(span <= _FLAT_RANGE + 0.01).mean() for span in spans], np.float32)
