"""The one thing that a stored picture keeps of its EXIF block: which way is up.

EXIF 2.32 (CIPA DC-008), section 4.6.4 A, tag 0x0112. Pillow's own parser reads every tag and, in a
PNG, decodes the picture on the way; this one reads a single number and cannot fail.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ORIENTATION_TAG = 0x0112
_SHORT = 3


def orientation(info: Mapping[Any, Any]) -> int:
    """The orientation, 1 (upright) to 8, from a Pillow image's `info`; 1 where none is readable."""
    block = info.get("exif")
    if isinstance(block, bytes):
        return exif_orientation(block.removeprefix(b"Exif\0\0"))
    # ImageMagick keeps the block of a PNG as hex text, below three lines of its own.
    text = info.get("Raw profile type exif")
    if isinstance(text, str):
        try:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            return 1
        return exif_orientation(block.removeprefix(b"Exif\0\0"))
    return 1


def upright_pixels(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """(H, W, C) pixels as they were meant to be seen, given their `orientation`."""
    if turn in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def exif_orientation(block: bytes) -> int:
    """The orientation that an EXIF block (its TIFF header first) gives, 1 to 8; 1 for none."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, directory)
        for entry in range(entries):
            place = directory + 2 + 12 * entry
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, place)
            if tag == _ORIENTATION_TAG and kind == _SHORT:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
