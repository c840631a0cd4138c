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
  the copy descriptors, which see the whole, are not alike. A ground may be flat, graded or striped:
  what repeats along a line agrees with every other picture on that ground, so it is no evidence.

So `disagreement` is a weighed count of differing cells, in units of agreeing ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.settings import CopyLimits
from curate.duplicates.verify.cells import (
    CELLS,
    colour_contrast,
    colour_difference,
    cornered_share,
    fine_structure,
    flat_share,
    spread_out,
    summed,
    variance,
)
from curate.duplicates.verify.registration import (
    MISFIT_LIMIT,
    Floats,
    inside,
    register,
    relit,
    smooth,
    warp,
)
from curate.pictures.perceptual_hashes import LUMA_SIDE, mirrored, unpacked

STRUCTURE = 3.0
"""Variance of fine structure (8-bit levels, squared) from which on a cell has any."""
AGREES, DIFFERS = 0.75, 0.5
"""Correlation of fine structure from which a cell agrees, and below which it differs."""
FAR_LIGHT, FAR_COLOUR, FAR_COLOUR_PLAIN = 60.0, 30.0**2, 18.0**2
"""Mean squared difference of luma, and of colour, from which a cell differs in any case."""
RIM, ONE_SIDED = 0.25, 0.25
"""Weights of a cell at the rim, and of one where only one picture has structure."""
_ONE_SIDED_RATIO = 3.0
OFF, SPILL = 0.25, 0.25
"""Squared residual, in units of the cell's fine structure, from which a point is off; and share of
a cell's points that are off in a difference of its own. Fine structure reaches four points far, so
beside a label's edge it differs in cells that the label does not touch."""
_BLOCK = 64

LEAST_CELLS = 4
"""Agreeing cells that a copy needs at the least: a flat picture can be compared with nothing."""
FEW_CELLS, FEW_SHARE = 10, 0.9
"""With fewer agreeing cells than this, this share of the cells must agree."""
RICH, PLAIN = 0.8, 0.35
"""Share of a picture that is not flat from which on it is full of detail as photographs are; if it
is not, share of cells with corners below which it is a scene of few things on one ground."""
SURE, CERTAIN = 0.9, 0.95
"""Cosine of copy descriptors from which on a differing cell of a plain picture may be an edit, and
from which on few agreeing cells are enough evidence."""
EQUAL, EQUAL_MISFIT, EQUAL_RESIDUAL, EQUAL_TINT = 0.85, 0.05, 0.08, 0.2
"""Least cosine, largest misfit, residual and tint of pictures in which nothing differs: they need
no agreeing cells, which a scene has not where its things are as light as their ground."""
PLAIN_CELLS, PLAIN_UNSURE_CELLS = 1.25, 0.5
"""Differing cells, weighed, that are allowed in plain pictures, sure or not."""
MAX_COLOUR = 16.0
"""Largest mean difference of colour, in 8-bit levels."""


@dataclass(frozen=True)
class Agreement:
    """What P pairs have in common, (P,) each."""

    misfit: Floats
    """Of the coarse registration, 0 to 1; above MISFIT_LIMIT nothing else was computed."""
    fit: Floats
    """Misfit of the final registration, 0 to 1: of two directions, the one with less is right."""
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
    tint: Floats
    """The same over the contrast of colour."""
    rich: Floats
    """Share of the flatter picture that is not flat."""
    cornered: Floats
    """Share of cells with structure in two directions, of the picture that has fewer."""


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
    plain, sure = is_plain(found.rich, found.cornered), similarity >= SURE
    cells = np.where(plain, np.where(sure, PLAIN_CELLS, PLAIN_UNSURE_CELLS), np.inf)
    few = (found.agreeing < FEW_CELLS) & (similarity < CERTAIN)
    share = np.where(few, max(FEW_SHARE, limits.share), limits.share)
    # Too little structure for a vote of cells, but nothing that differs anywhere.
    equal = (found.misfit <= EQUAL_MISFIT) & (found.residual <= EQUAL_RESIDUAL)
    equal &= (similarity >= EQUAL) & (found.tint <= EQUAL_TINT) & (found.disagreement == 0)
    return np.asarray(
        (found.misfit <= MISFIT_LIMIT)
        & ((found.agreeing >= LEAST_CELLS) | equal)
        & ((found.share >= share) | equal)
        & (found.disagreement <= np.where(rich, 2, 1) * limits.disagreement)
        & (found.disagreement * np.maximum(found.agreeing, 1) <= cells)
        & (found.residual <= np.where(rich, 1.5, 1) * limits.residual)
        & (found.colour <= MAX_COLOUR)
    )


def is_plain(rich: Floats, cornered: Floats) -> NDArray[np.bool_]:
    """(P,) whether a pair is of scenes of few things on one ground; see Agreement's two shares."""
    return np.asarray((rich < RICH) & (cornered < PLAIN))


def _compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Agreement:
    second_luma, second_colour = unpacked(second)
    turned = mirrored(first)
    found = register([unpacked(way)[0] for way in (first, turned)], second_luma)
    chosen = np.where((found.way == 1)[:, None], turned, first)
    pose, misfit, fit = found.pose, found.misfit, found.fit
    going = np.flatnonzero(misfit <= MISFIT_LIMIT)
    rest = fields(Agreement)[2:]
    out = Agreement(misfit, fit, *(np.zeros(len(first), np.float32) for _ in rest))
    if not len(going):
        return out
    luma, colour = unpacked(chosen[going])
    measured = _judged(luma, colour, second_luma[going], second_colour[going], pose[going])
    for each, values in zip(rest, measured, strict=True):
        getattr(out, each.name)[going] = values
    return out


def _judged(
    luma_a: Floats, colour_a: Floats, luma_b: Floats, colour_b: Floats, pose: Floats
) -> tuple[Floats, ...]:
    """Everything in Agreement but misfit and fit."""
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
    points = np.maximum(summed(mask), 1e-3)
    fine_a, fine_b = fine_structure(model), fine_structure(b)
    power_a, power_b, product = (
        summed(x * seen) / points for x in (fine_a * fine_a, fine_b * fine_b, fine_a * fine_b)
    )
    light = summed(residual**2 * mask) / points
    # Smoothed again: a thin line resampled at another place is no difference.
    broad = summed(smooth(smooth(residual)) ** 2 * mask) / points
    colour, coloured = colour_difference(colour_a, colour_b, pose)
    contrast = variance(b, mask)[:, None, None]

    known = (points >= 40) & (summed(mask * hidden) < points / 2)
    structured = known & (np.maximum(power_a, power_b) > STRUCTURE)
    correlation = product / np.sqrt((power_a + 1) * (power_b + 1))
    far = known & (light > np.maximum(FAR_LIGHT, 0.12 * contrast))
    rich = 1 - np.maximum(flat_share(luma_a), flat_share(luma_b))
    cornered = np.minimum(cornered_share(a), cornered_share(b))
    limit = np.where(is_plain(rich, cornered), FAR_COLOUR_PLAIN, FAR_COLOUR)
    far |= known & (colour > limit[:, None, None]) & coloured[:, None, None]
    off = residual**2 > OFF * spread_out(np.maximum(power_a, power_b))
    spilt = (correlation < DIFFERS) & ~far & (summed(off * mask) < SPILL * points)
    structured &= ~spilt
    differs = (structured & (correlation < DIFFERS)) | far
    agrees = structured & (correlation >= AGREES) & ~differs
    agreeing = agrees.sum(axis=(1, 2)).astype(np.float32)
    rest = known & ~differs
    left = np.maximum(rest.sum(axis=(1, 2)), 1)
    shade = np.where(coloured, np.sqrt((colour * rest).sum(axis=(1, 2)) / left), 0)
    return (
        agreeing,
        agreeing / np.maximum((structured & ~differs).sum(axis=(1, 2)), 1),
        _weighed(differs, np.asarray((power_a + 2) / (power_b + 2))) / np.maximum(agreeing, 1),
        np.sqrt((broad * rest).sum(axis=(1, 2)) / left / contrast[:, 0, 0]),
        shade,
        np.asarray(shade / np.minimum(colour_contrast(colour_a), colour_contrast(colour_b))),
        rich,
        cornered,
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
