"""The quality that a JPEG was saved with, estimated from its table of quantisation.

The Independent JPEG Group's encoder (libjpeg: Pillow, OpenCV, ImageMagick and most of the web)
scales one table by a quality of 1 to 100. The quality told here is the one whose table is
nearest: exact for a file of libjpeg's, an estimate for encoders with tables of their own
(Photoshop, mozjpeg, cameras). It belongs to the last encoding alone: a picture that was saved at 40
and again at 95 has 95.

Table and scaling: ITU-T T.81, table K.1; libjpeg, jcparam.c (jpeg_quality_scaling).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from curate.pictures.jpeg import DamagedJpegError, read_header

# Luminance, in the order of the file: zigzag.
_LUMA = np.array(
    [
        *(16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40),
        *(26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51),
        *(56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87),
        *(95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99),
    ],
    np.int64,
)


def jpeg_quality(content: bytes) -> int | None:
    """The estimated quality of a JPEG's bytes, 1 to 100; None where its header tells no table."""
    try:
        steps = read_header(content).steps
    except DamagedJpegError:
        return None
    return None if steps is None else estimated_quality(steps)


def estimated_quality(table: tuple[int, ...]) -> int:
    """The IJG quality, 1 to 100, whose luminance table is nearest to one of 64 steps in zigzag
    order: by the least sum of differences, of equals the higher quality."""
    steps = np.minimum(np.array(table, np.int64), 255)
    distance = np.abs(_tables() - steps).sum(axis=1)
    return 100 - int(distance[::-1].argmin())


@cache
def _tables() -> NDArray[np.int64]:
    """(100, 64): the tables of all qualities."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_LUMA * scale[:, None] + 50) // 100, 1, 255)
