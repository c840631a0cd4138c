"""Checksums of a PNG's pixel data, which Pillow skips: a damaged file would pass as a picture.

PNG specification (Third Edition), section 5.3, chunk layout, and 5.5, CRC algorithm.
"""

from __future__ import annotations

import zlib

_SIGNATURE_BYTES = 8


def damaged_pixel_data(content: bytes) -> str | None:
    """What is wrong with the IDAT chunks of a PNG, or None. Costs one CRC over the file."""
    place = _SIGNATURE_BYTES
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        end = place + 8 + length
        if end + 4 > len(content):
            return f"chunk {kind!r} is cut short"
        if kind == b"IDAT":
            announced = int.from_bytes(content[end : end + 4], "big")
            if zlib.crc32(memoryview(content)[place + 4 : end]) != announced:
                return "the checksum of the pixel data is wrong"
        if kind == b"IEND":
            return None
        place = end + 4
    return "the file ends before its IEND chunk"
