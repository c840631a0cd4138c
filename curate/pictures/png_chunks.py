"""What Pillow does not see in a PNG, and what it must not see there.

It skips the checksums of the pixel data, so a damaged file would pass as a picture; and it refuses
a whole picture for the length or the checksum of a text beside it.

PNG specification (Third Edition), section 5.3, chunk layout, 5.5, CRC algorithm, and 11.3.3, texts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import PngImagePlugin

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Texts that can say which way is up: Pillow's, ImageMagick's and Adobe's name for it.
_TURNING = (b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp")
_LONGEST_TEXT = 1 << 20  # bytes, unpacked: Pillow's own limit

# The same limit of Pillow's holds for colour profiles, and those of lookup tables are longer.
PngImagePlugin.MAX_TEXT_CHUNK = 8 << 20


def damaged_pixel_data(content: bytes) -> str | None:
    """What is wrong with the IDAT chunks of a PNG, or None. Costs one CRC over the file."""
    for kind, start, end in _chunks(content):
        if end > len(content):
            return f"chunk {kind!r} is cut short"
        if kind == b"IDAT":
            announced = int.from_bytes(content[end - 4 : end], "big")
            if zlib.crc32(memoryview(content)[start + 4 : end - 4]) != announced:
                return "the checksum of the pixel data is wrong"
        if kind == b"IEND":
            return None
    return "the file ends before its IEND chunk"


def without_texts(content: bytes) -> bytes:
    """A PNG without its text chunks, but for short ones that may say which way is up.

    Any other file, and a PNG without texts, comes back as it is.
    """
    if not content.startswith(_SIGNATURE):
        return content
    kept: list[memoryview] = []
    whole, copied = memoryview(content), 0
    for kind, start, end in _chunks(content):
        if kind in _TEXTS and not _turns(kind, whole[start + 8 : max(start + 8, end - 4)]):
            kept.append(whole[copied:start])
            copied = end
        if kind == b"IEND":
            break
    return b"".join([*kept, whole[copied:]]) if copied else content


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk, length and checksum included; the last may be cut."""
    start = len(_SIGNATURE)
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        yield content[start + 4 : start + 8], start, end
        start = end


def _turns(kind: bytes, text: memoryview) -> bool:
    """Whether a text chunk may say which way is up, and is short enough for Pillow."""
    keyword, _, value = bytes(text[:_LONGEST_TEXT]).partition(b"\0")
    if keyword not in _TURNING or len(text) > _LONGEST_TEXT:
        return False
    if kind == b"iTXt" and value[:1] == b"\1":
        packed = value[2:].split(b"\0", 2)[-1]
    elif kind == b"zTXt":
        packed = value[1:]
    else:
        return True
    try:
        return len(zlib.decompressobj().decompress(packed, _LONGEST_TEXT + 1)) <= _LONGEST_TEXT
    except zlib.error:
        return False
