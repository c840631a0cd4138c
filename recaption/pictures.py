"""Pictures on their way to a captioner: decoded upright, RGB, no larger than asked."""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image, ImageOps

from curate.pictures.decode import MAX_PIXELS, to_rgb

PictureFormat = Literal["jpeg", "png"]
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright


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


def encode(image: Image.Image, picture_format: PictureFormat, quality: int = 90) -> bytes:
    """Encode RGB; `quality` (1 to 95) is JPEG's."""
    buffer = io.BytesIO()
    if picture_format == "jpeg":
        image.save(buffer, format="jpeg", quality=quality)
    else:
        image.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def for_sending(
    encoded: bytes, longest_side: int, picture_format: PictureFormat
) -> tuple[bytes, tuple[int, int]]:
    """Bytes to send and their (width, height) in pixels.

    A file that already has the format and the size, and stands upright, goes as it is: another
    round of JPEG would only cost time and detail.

    Raises:
        BrokenPictureError: as `decode`.
    """
    image = decode(encoded, longest_side)
    with Image.open(io.BytesIO(encoded)) as stored:
        untouched = (
            stored.size == image.size
            and (stored.format or "").lower() == picture_format
            and stored.mode == "RGB"
            and stored.getexif().get(_ORIENTATION, 1) == 1
        )
    return (encoded if untouched else encode(image, picture_format)), image.size
