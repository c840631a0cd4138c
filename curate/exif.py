"""The one thing that a stored picture keeps of its EXIF block: which way is up.

EXIF 2.32 (CIPA DC-008), section 4.6.4 A, tag 0x0112. Pillow's own parser reads every tag and, in a
PNG, decodes the picture on the way; this one reads a single number and cannot fail.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

_ORIENTATION_TAG = 0x0112
_SHORT = 3
# What turns a picture upright, by orientation: mirrored, rotated or both.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(info: Mapping[Any, Any]) -> int:
    """The orientation, 1 (upright) to 8, from a Pillow image's `info`; 1 where none is readable."""
    block = info.get("exif")
    if isinstance(block, bytes):
        return _orientation_of(block.removeprefix(b"Exif\0\0"))
    # ImageMagick keeps the block of a PNG as hex text, below three lines of its own.
    text = info.get("Raw profile type exif")
    if isinstance(text, str):
        try:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            return 1
        return _orientation_of(block.removeprefix(b"Exif\0\0"))
    return 1


def upright(image: Image.Image, turn: int) -> Image.Image:
    """The picture as it was meant to be seen, given its `orientation`."""
    return image.transpose(_TRANSPOSES[turn]) if turn in _TRANSPOSES else image


def _orientation_of(block: bytes) -> int:
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
                return value if value in _TRANSPOSES else 1
    except struct.error:
        return 1
    return 1
