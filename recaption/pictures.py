"""Pictures on their way to a captioner: decoded upright, RGB, no larger than asked."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

# Pillow raises some of these from its many decoders for a file that is damaged or no image at all.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class BrokenPictureError(Exception):
    """A picture's bytes cannot be decoded; the message is the decoder's."""


def decode(encoded: bytes, longest_side: int = 0) -> Image.Image:
    """Decode an image file to RGB, upright, transparency over white.

    Args:
        longest_side: shrink (never enlarge) until neither side is longer, in pixels; 0 keeps the
            size. Area-averaged by Pillow's reducing Lanczos filter.

    Raises:
        BrokenPictureError: the bytes are no image, or a damaged one.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
    except DECODE_ERRORS as error:
        # Pillow's own words name a memory address, which would differ from run to run.
        raise BrokenPictureError("no picture that Pillow can read") from error
    try:
        if longest_side:
            # JPEG can decode straight to 1/2, 1/4 or 1/8 of its size, at a fraction of the cost.
            image.draft("RGB", (longest_side, longest_side))
        image.load()
        upright = ImageOps.exif_transpose(image)
    except DECODE_ERRORS as error:
        raise BrokenPictureError(str(error)) from error
    rgb = _over_white(upright)
    if longest_side and max(rgb.size) > longest_side:
        scale = longest_side / max(rgb.size)
        size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        rgb = rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return rgb


def encode(image: Image.Image, image_format: str, quality: int = 90) -> bytes:
    """Encode RGB as "jpeg" or "png"; `quality` (1 to 95) is JPEG's."""
    buffer = io.BytesIO()
    options = {"quality": quality} if image_format == "jpeg" else {"compress_level": 1}
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
