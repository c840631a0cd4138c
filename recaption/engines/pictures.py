"""Pictures on their way to a captioner: decoded upright, RGB, no larger than asked."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from curate.pictures.decode import MAX_PIXELS, to_rgb
from curate.pictures.jpeg import DamagedJpegError, read_header
from recaption.engines.settings import PictureFormat

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_RGB_8 = b"\x08\x02"  # bit depth and colour type in the header chunk
# Cameras append notes and previews behind the picture; more than this is looked at in full.
_TRAILING_BYTES = 4096


class BrokenPictureError(Exception):
    """A picture's bytes cannot be decoded; the message is the decoder's."""


def decode(encoded: bytes, longest_side: int = 0) -> Image.Image:
    """Decode an image file to RGB, upright, transparency over white.

    Args:
        longest_side: shrink (never enlarge) until neither side is longer, in pixels; 0 keeps the
            size. Lanczos over the new pixel's whole footprint.

    Raises:
        BrokenPictureError: the bytes are no image, a damaged one, or one of absurd size.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise BrokenPictureError(f"more than {MAX_PIXELS} pixels")
            if longest_side and max(opened.size) > longest_side:
                # JPEG decodes straight to 1/2, 1/4 or 1/8 of its size, never below the one asked.
                opened.draft("RGB", (longest_side, longest_side))
            opened.load()
            rgb = to_rgb(ImageOps.exif_transpose(opened))
    except BrokenPictureError:
        raise
    except Exception as error:
        # Decoders raise almost any type on hostile bytes, and each means that this row fails.
        # Pillow's words for an unknown format hold a memory address, so the type comes alone.
        raise BrokenPictureError(f"Pillow cannot decode it ({type(error).__name__})") from error
    if longest_side and max(rgb.size) > longest_side:
        scale = longest_side / max(rgb.size)
        size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        rgb = rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return rgb


def header_size(encoded: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as the file's header says; None where there is none to read."""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            return opened.size
    except Exception:  # decode will say what is wrong with it
        return None


def shown_pixels(encoded: bytes, longest_side: int = 0) -> int:
    """Pixels of a picture as `decode` would give it, by its header alone; 0 for no picture."""
    width, height = header_size(encoded) or (0, 0)
    if not width * height:
        return 0
    scale = min(1.0, longest_side / max(width, height)) if longest_side else 1.0
    return round(width * height * scale * scale)


def encode(image: Image.Image, picture_format: PictureFormat, quality: int = 90) -> bytes:
    """Encode RGB; `quality` (1 to 95) is JPEG's."""
    buffer = io.BytesIO()
    if picture_format == "jpeg":
        image.save(buffer, format="jpeg", quality=quality)
    else:
        image.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def size_as_it_is(
    encoded: bytes, longest_side: int, picture_format: PictureFormat
) -> tuple[int, int] | None:
    """(width, height) of a file that can be sent as it lies there; None for every other.

    Such a file has the asked format, is 8-bit RGB, stands upright, is no larger than asked and
    ends where a whole file ends. Only its header and its end are read: microseconds, whatever its
    size. A file that was cut short is therefore found; damage in its middle is not, and goes out
    to the captioner (Pillow would not notice most of that either).

    Args:
        longest_side: in pixels; 0 allows any size.
    """
    size = _jpeg_size(encoded) if picture_format == "jpeg" else _png_size(encoded)
    if size is None or size[0] * size[1] > MAX_PIXELS or min(size) == 0:
        return None
    return None if longest_side and max(size) > longest_side else size


def for_sending(
    encoded: bytes, longest_side: int, picture_format: PictureFormat
) -> tuple[bytes, tuple[int, int]]:
    """Bytes to send and their (width, height) in pixels.

    A file that can go as it is does (see `size_as_it_is`): another round of JPEG would only cost
    time and detail.

    Raises:
        BrokenPictureError: as `decode`.
    """
    size = size_as_it_is(encoded, longest_side, picture_format)
    if size is not None:
        return encoded, size
    image = decode(encoded, longest_side)
    return encode(image, picture_format), image.size


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    if not encoded.startswith(_JPEG_START) or _JPEG_END not in encoded[-_TRAILING_BYTES:]:
        return None
    try:
        header = read_header(encoded)
    except DamagedJpegError:
        return None
    upright = header.components == 3 and header.orientation == 1
    return (header.width, header.height) if upright else None


def _png_size(encoded: bytes) -> tuple[int, int] | None:
    plain = (
        encoded.startswith(_PNG_START)
        and encoded[12:16] == b"IHDR"
        and encoded[24:26] == _PNG_RGB_8
        and encoded.endswith(_PNG_END)
        # A transparent colour and a turned picture need another look; so do the rare files whose
        # pixels happen to spell these names.
        and b"tRNS" not in encoded
        and b"eXIf" not in encoded
        and b"Raw profile type" not in encoded
    )
    if not plain:
        return None
    return int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
