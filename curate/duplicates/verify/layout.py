"""A cheap look at where the colours of two small pictures lie, before anybody registers them.

Scenes of few things on one ground share their hashes with every other scene on that ground. Copies
of such a scene have copy descriptors that are alike, and their colours lie in the same places; an
edit moves them by a cell at most. Pictures that are full of detail are not judged here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.verify.agreement import FAR_COLOUR_PLAIN, is_plain
from curate.duplicates.verify.cells import CELLS, GREY, cornered_share, flat_share
from curate.duplicates.verify.registration import Floats, smooth
from curate.pictures.perceptual_hashes import COLOUR_SIDE, unpacked

PLAIN_ALIKE = 0.8
"""Least cosine of the copy descriptors of copies of plain pictures. Of 6,000 drawn scenes the least
of a true pair is 0.85, of a hundred edited photographs and graphics that are plain 0.82."""
FAR_CELLS = 8
"""Cells of 64 whose colour may be far off; of the same true pairs 6 in one and 2 in the rest."""
_MOST_GAIN = 1.8
_BLOCK = 256


def may_be_copies(
    first: NDArray[np.uint8], second: NDArray[np.uint8], alike: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """(P,) False for pairs of thumbnails, (P, 4608) uint8 each, that look too different.

    Args:
        alike: (P,) cosine of their copy descriptors.
    """
    out = np.ones(len(first), bool)
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        one, other = unpacked(first[part]), unpacked(second[part])
        doubted = alike[part] < PLAIN_ALIKE
        doubted |= far_cells(one[1], other[1]) > FAR_CELLS
        pairs = np.flatnonzero(doubted)
        luma = one[0][pairs], other[0][pairs]
        rich = 1 - np.maximum(*(flat_share(side) for side in luma))
        cornered = np.minimum(*(cornered_share(smooth(side)) for side in luma))
        out[start + pairs] = ~is_plain(rich, cornered)
    return out


def far_cells(first: Floats, second: Floats) -> NDArray[np.int64]:
    """(P,) cells of 8 x 8 whose colour is far from all nine cells around that place.

    Either may be the mirror image of the other, or paler. A grey picture is far from nothing.

    Args:
        first, second: (P, 2, 16, 16) colour, 0 for grey.
    """
    ways = (_in_cells(first), _in_cells(first[..., ::-1]))
    other = _in_cells(second)
    found = [np.minimum(_far(way, other), _far(other, way)) for way in ways]
    strongest = [np.abs(side).max(axis=(1, 2, 3)) for side in (first, second)]
    return np.where(np.minimum(*strongest) > GREY, np.minimum(*found), 0)


def _in_cells(colour: Floats) -> Floats:
    fold = COLOUR_SIDE // CELLS
    return np.asarray(colour.reshape(-1, 2, CELLS, fold, CELLS, fold).mean(axis=(3, 5)))


def _far(moving: Floats, still: Floats) -> NDArray[np.int64]:
    every = (1, 2, 3)
    power = np.maximum((moving * moving).sum(axis=every), 16)
    gain = np.clip((moving * still).sum(axis=every) / power, 0, _MOST_GAIN)
    paled = gain[:, None, None, None] * moving
    wide = np.pad(paled, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    squared = np.full((len(moving), CELLS, CELLS), np.inf, np.float32)
    for y in range(3):
        for x in range(3):
            apart = wide[:, :, y : y + CELLS, x : x + CELLS] - still
            np.minimum(squared, (apart * apart).sum(axis=1), out=squared)
    return np.asarray((squared > FAR_COLOUR_PLAIN).sum(axis=(1, 2)))
