"""JPEG through libjpeg-turbo: decoded strictly, and no larger than needed.

Pillow turns a JPEG's damage into grey areas or shifted blocks and says nothing unless the file ends
early. libjpeg notices most of it (a Huffman code that is none, bytes left over, a missing marker)
and calls it a warning; here such a warning refuses the file. Harmless ones pass: padding before the
end marker, and header oddities.

Markers and segments: ITU-T T.81, annex B; EXIF 2.32, section 4.5.5; ICC.1:2022, annex B.4.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from curate.pictures.exif import exif_orientation

_START_OF_SCAN, _END, _COMMENT, _TABLES = 0xDA, 0xD9, 0xFE, 0xDB
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_MOST_SEGMENTS = 10_000
# Frames of 8 bits: baseline to progressive, Huffman or arithmetic coding.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
# Markers without a length: TEM, the restarts, and the start of the image.
_NO_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_ODDITIES = ("Invalid SOS parameters", "Inconsistent progression", "Unknown Adobe", "Warning:")
_FACTORS = (8, 4, 2)


class DamagedJpegError(ValueError):
    """The file is damaged, cut short or no JPEG that we decode; the text says how."""


class UncommonJpegError(ValueError):
    """A JPEG that the fast decoder does not take, such as one with 4:1:0 chroma."""


@dataclass(frozen=True)
class JpegHeader:
    """What stands before the first scan."""

    width: int  # pixels, not turned
    height: int
    components: int  # 1 grey, 3 colour, 4 CMYK
    progressive: bool
    orientation: int  # 1 to 8
    profile: bytes | None  # ICC
    steps: tuple[int, ...] | None = None  # 64, of the first component's quantisation, zigzag


def read_header(content: bytes) -> JpegHeader:
    """Walk the segments up to the first scan; microseconds, whatever the size.

    Raises:
        DamagedJpegError: no frame, or segments that make no sense.
    """
    frame: tuple[int, int, int, bool] | None = None
    turn = 1
    profile: dict[int, bytes] = {}
    tables: dict[int, tuple[int, ...]] = {}
    first = -1
    try:
        for marker, _, start, stop in _segments(content):
            if marker in _FRAMES and frame is None:
                height, width, components = struct.unpack_from(">HHB", content, start + 1)
                frame = (width, height, components, marker in _PROGRESSIVE)
                first = content[start + 8] if components else -1
            elif marker == _TABLES:
                tables |= _quantisation(content[start:stop])
            elif marker == _APP1 and content.startswith(_EXIF, start):
                turn = exif_orientation(content[start + len(_EXIF) : stop])
            elif marker == _APP2 and content.startswith(_ICC, start):
                number = content[start + len(_ICC)]
                profile[number] = content[start + len(_ICC) + 2 : stop]
    except (struct.error, IndexError) as error:
        raise DamagedJpegError("the file ends in its header") from error
    if frame is None:
        raise DamagedJpegError("no frame of a kind that is decoded")
    icc = b"".join(profile[number] for number in sorted(profile)) or None
    return JpegHeader(*frame, turn, icc, tables.get(first))


def _quantisation(segment: bytes) -> dict[int, tuple[int, ...]]:
    """Number -> 64 steps of the tables in a DQT segment; of one that is cut short what is whole."""
    tables, place = {}, 0
    while place < len(segment):
        wide, number = segment[place] >> 4, segment[place] & 15
        size = 128 if wide else 64
        steps = segment[place + 1 : place + 1 + size]
        if len(steps) == size:
            tables[number] = struct.unpack(">64H" if wide else "64B", steps)
        place += 1 + size
    return tables


def _segments(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(marker, where it stands, start and end of what it holds) of all before the first scan."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        place = content.find(b"\xff", place)  # libjpeg skips what lies between segments as well
        if place < 0:
            raise IndexError("no further marker")
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1  # filling
        elif marker in _NO_LENGTH:
            place += 2
        elif marker in (_START_OF_SCAN, _END):
            yield marker, place, place, len(content)
            return
        else:
            (length,) = struct.unpack_from(">H", content, place + 2)
            yield marker, place, place + 4, place + 2 + length
            place += 2 + max(2, length)
    raise DamagedJpegError(f"more than {_MOST_SEGMENTS} segments")


def _essential(content: bytes) -> bytes:
    """The file without the segments that hold notes: some are broken and harm the decoder alone."""
    parts = [content[:2]]
    for marker, place, start, stop in _segments(content):
        adobe = marker == _APP14 and content[start : start + 5] == b"Adobe" and stop - start >= 12
        if adobe and content[start + 11] in (0, 1, 2):
            parts.append(content[place:stop])  # says how colours are coded
        elif not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            parts.append(content[place:stop])
    return b"".join(parts)


def decode(
    content: bytes, header: JpegHeader, needed: tuple[int, int], plain_chroma: bool = False
) -> NDArray[np.uint8]:
    """The pixels, (H, W, 3) sRGB or (H, W, 1) grey, decoded at the smallest sufficient scale.

    libjpeg scales by 1/2, 1/4 and 1/8 inside the inverse cosine transform: less work there, and
    far less for everything after it.

    Args:
        needed: width and height in pixels that are wanted at least.
        plain_chroma: repeat the values of halved chroma instead of interpolating them. Right for
            what is stored with halved chroma again: averaging then gives the same values back.

    Raises:
        DamagedJpegError: see the module.
        UncommonJpegError: another decoder has to tell.
    """
    width, height = header.width, header.height
    factor = next(
        (f for f in _FACTORS if width >= f * needed[0] and height >= f * needed[1]),
        1,
    )
    return _decode(content, header, -(-width // factor), -(-height // factor), plain_chroma)


def check(content: bytes, header: JpegHeader) -> None:
    """Go over all scans of a picture that another decoder reads, as small as can be.

    Raises:
        DamagedJpegError, UncommonJpegError: as `decode`.
    """
    _decode(content, header, -(-header.width // 8), -(-header.height // 8))


def encode(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """(H, W, 3) sRGB as a baseline JPEG with chroma at half resolution and no metadata."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality, "RGB", "420", fastdct=False
    )
    return encoded


def _decode(
    content: bytes, header: JpegHeader, width: int, height: int, plain_chroma: bool = True
) -> NDArray[np.uint8]:
    space = {1: "GRAY", 3: "RGB", 4: "CMYK"}.get(header.components)
    if space is None:
        raise DamagedJpegError(f"{header.components} components")
    size = {"min_width": width, "min_height": height, "fastupsample": plain_chroma}
    try:
        try:
            _confirm(content, header)
            pixels = simplejpeg.decode_jpeg(content, space, **size)
        except ValueError as error:
            if _is_harmless(str(error), content):
                pixels = simplejpeg.decode_jpeg(content, space, strict=False, **size)
            else:
                bare = _essential(content)
                _confirm(bare, header)
                pixels = simplejpeg.decode_jpeg(bare, space, **size)
    except (ValueError, IndexError, struct.error) as error:
        if "subsampling" in str(error):
            raise UncommonJpegError(str(error)) from error
        raise DamagedJpegError(str(error)) from error
    decoded: NDArray[np.uint8] = pixels
    return decoded


def _confirm(content: bytes, header: JpegHeader) -> None:
    """The size that was allowed must be the one that libjpeg-turbo is going to decode."""
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    if (width, height) != (header.width, header.height):
        raise DamagedJpegError(f"two sizes: {header.width} x {header.height}, {width} x {height}")


def _is_harmless(warning: str, content: bytes) -> bool:
    """Whether a picture is whole although libjpeg-turbo warns of it."""
    extraneous = _EXTRANEOUS.search(warning)
    if extraneous is not None:
        # Some encoders pad the last scan. Real data left over means that some was skipped.
        end = content.rfind(b"\xff\xd9")
        padding = content[max(0, end - int(extraneous[1])) : end]
        return not padding.strip(b"\0") or not padding.strip(b"\xff")
    return warning.startswith(_ODDITIES)
