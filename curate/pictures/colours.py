"""Any picture's pixels as 8-bit sRGB on white."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_WHITES = (1.0, 255.0, 65535.0, 4294967295.0)
# What a profile must describe for pixels of a mode.
_PROFILE_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


class PixelRangeError(ValueError):
    """Float or 32-bit pixels that fit no range: nothing says which values are black and white."""


def to_resizable(image: Image.Image) -> Image.Image:
    """The loaded picture in a mode that can be averaged: L, LA, RGB, RGBA or CMYK.

    16-bit grey is scaled to 8 bits by its full range (65535, or 4095 for a 12-bit TIFF), not
    clipped at 255. Palette and key colours become an alpha channel.

    32-bit and float grey is taken to fill the smallest of the customary ranges that holds it: 0 to
    1 (float only), 255, 65535 or 4294967295.

    Raises:
        PixelRangeError: float or 32-bit pixels that fit none of them.
    """
    mode = image.mode
    if mode in _SIXTEEN_BIT:
        return Image.fromarray(_scale_table(_significant_bits(image))[np.asarray(image)])
    if mode in ("I", "F"):
        return Image.fromarray(_ranged(np.asarray(image), mode == "F"))
    if mode == "LAB":
        return _applied(_lab_to_srgb(), image)
    if image.has_transparency_data:
        return image if mode in ("RGBA", "LA") else image.convert("RGBA")
    if mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A picture from `to_resizable` in sRGB, mode RGB, what was transparent on white.

    Args:
        profile: the file's ICC profile. One that is broken, or that describes another kind of
            pixels, is ignored, as browsers do: the pixels are then taken as sRGB.
    """
    alpha = None
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    transform = _transform(profile, image.mode) if profile else None
    if transform is not None:
        image = _applied(transform, image)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=alpha)
    return white


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None only where the image is changed in place
    return converted


def _ranged(values: np.ndarray, real: bool) -> np.ndarray:
    """(H, W) float32 or int32 samples as uint8."""
    finite = np.isfinite(values)
    low, high = values.min(where=finite, initial=0), values.max(where=finite, initial=0)
    white = next((w for w in _WHITES[0 if real else 1 :] if high <= w), None)
    # A little below zero is the overshoot of a filter; far below is no brightness.
    if white is None or low < -0.1 * white or not finite.any():
        raise PixelRangeError(f"pixels from {low:g} to {high:g}")
    shares = np.where(finite, values, 0).astype(np.float64) / white
    return np.rint(255 * shares.clip(0, 1)).astype(np.uint8)


@lru_cache(maxsize=4)
def _scale_table(bits: int) -> np.ndarray:
    """(65536,) uint8: each sample value of `bits` bits, scaled to 0..255."""
    full = 2**bits - 1
    scaled = np.minimum(np.arange(1 << 16), full) * (255.0 / full)
    return np.rint(scaled).astype(np.uint8)


def _significant_bits(image: Image.Image) -> int:
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 16
    return 12 if tuple(tags.get(_BITS_PER_SAMPLE, ())) == (12,) else 16


@lru_cache(maxsize=128)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from `profile` to sRGB; None where there is none to go. Building one costs 1 ms."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _PROFILE_SPACES[mode]:
            return None
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=1)
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return ImageCms.buildTransform(lab, _srgb(), "LAB", "RGB")
