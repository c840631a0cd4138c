"""Edits that people and machines make to photographs, at full size, for `caplab bench duplicates`.

Every edit takes an RGB picture and a generator (for what is random in it: the corner of a crop, the
place of a text) and gives the file that somebody would publish. A crop of p% takes p% of each side
away: half from either side when centred, all from one side when off-centre.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Random = np.random.Generator
Edit = Callable[[Image.Image, Random], bytes]
CROPS = (2, 4, 6, 8, 10, 12, 15)
"""Per cent of each side."""


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _plain(change: Callable[[Image.Image], Image.Image], quality: int = 88) -> Edit:
    """An edit without chance."""
    return lambda image, rng: jpeg(change(image), quality)


def _resize(x: float, y: float) -> Edit:
    def resized(image: Image.Image) -> Image.Image:
        size = (max(16, round(image.width * x)), max(16, round(image.height * y)))
        return image.resize(size, Image.Resampling.BICUBIC)

    return _plain(resized)


def _rotate(image: Image.Image, rng: Random, degrees: float, cut: bool) -> bytes:
    """Turn either way; black corners, or cut away as a straightening tool does."""
    turned = image.rotate(degrees * rng.choice([-1, 1]), Image.Resampling.BICUBIC)
    if not cut:
        return jpeg(turned)
    sine = np.sin(np.deg2rad(degrees))
    x, y = image.height * sine / 2 + 1, image.width * sine / 2 + 1
    return jpeg(turned.crop((round(x), round(y), image.width - round(x), image.height - round(y))))


def _crop(image: Image.Image, rng: Random, per_cent: float, centred: bool) -> bytes:
    lost = np.array(image.size) * per_cent / 100
    place = np.array([0.5, 0.5]) if centred else rng.integers(0, 2, 2)
    left, top = np.rint(lost * place).astype(int)
    width, height = np.rint(np.array(image.size) - lost).astype(int)
    return jpeg(image.crop((left, top, left + width, top + height)))


def _font(image: Image.Image, share: float) -> tuple[ImageFont.FreeTypeFont, float]:
    height = max(8.0, share * min(image.size))
    font = ImageFont.load_default(height)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font, height


def _text(image: Image.Image, rng: Random) -> bytes:
    """A line of outlined text, somewhere in the upper or lower quarter."""
    marked = image.copy()
    font, height = _font(image, 0.07)
    row = rng.uniform(0.02, 0.16) if rng.random() < 0.5 else rng.uniform(0.76, 0.9)
    words = "A caption that someone wrote" if rng.random() < 0.5 else "www.example.com"
    place, line = (0.06 * image.width, row * image.height), max(1, round(height / 12))
    pen = ImageDraw.Draw(marked)
    pen.text(place, words, "white", font, stroke_width=line, stroke_fill="black")
    return jpeg(marked)


def _bar(image: Image.Image, rng: Random) -> bytes:
    """A dark bar over the lowest tenth with text on it."""
    marked = image.copy()
    font, _ = _font(image, 0.06)
    top = 0.9 * image.height
    pen = ImageDraw.Draw(marked)
    pen.rectangle((0, top, *image.size), fill=(25, 25, 25))
    pen.text((0.03 * image.width, top + 2), "(c) a photographer, 2026", fill="white", font=font)
    return jpeg(marked)


def _logo(image: Image.Image, rng: Random) -> bytes:
    """A badge of 18% of the shorter side in a corner."""
    marked = image.copy()
    side, margin = 0.18 * min(image.size), 0.02 * min(image.size)
    right, low = rng.integers(0, 2, 2)
    left = image.width - margin - side if right else margin
    top = image.height - margin - side if low else margin
    pen = ImageDraw.Draw(marked)
    pen.ellipse((left, top, left + side, top + side), fill=tuple(rng.integers(0, 256, 3).tolist()))
    inner = side * 0.28
    pen.rectangle((left + inner, top + inner, left + side - inner, top + side - inner), "white")
    return jpeg(marked)


def _watermark(image: Image.Image, rng: Random) -> bytes:
    """One faint line of text (30% opaque) across the middle."""
    layer = Image.new("RGBA", image.size)
    font, _ = _font(image, 0.13)
    middle = (image.width / 2, image.height / 2)
    ImageDraw.Draw(layer).text(middle, "SAMPLE", (255, 255, 255, 77), font, anchor="mm")
    return jpeg(Image.alpha_composite(image.convert("RGBA"), layer))


EDITS: dict[str, Edit] = {
    **{f"jpeg_q{q}": _plain(lambda image: image, q) for q in (30, 50, 70, 90)},
    "resize_half": _resize(0.5, 0.5),
    "resize_quarter": _resize(0.25, 0.25),
    "resize_150": _resize(1.5, 1.5),
    "aspect_wide": _resize(1, 0.8),
    "aspect_tall": _resize(0.8, 1),
    "brightness_75": _plain(lambda image: ImageEnhance.Brightness(image).enhance(0.75)),
    "brightness_125": _plain(lambda image: ImageEnhance.Brightness(image).enhance(1.25)),
    "contrast_75": _plain(lambda image: ImageEnhance.Contrast(image).enhance(0.75)),
    "contrast_130": _plain(lambda image: ImageEnhance.Contrast(image).enhance(1.3)),
    "grey": _plain(ImageOps.grayscale),
    "text": _text,
    "text_bar": _bar,
    "logo": _logo,
    "watermark": _watermark,
    "mirror": _plain(ImageOps.mirror),
    **{f"rotate_{d}": partial(_rotate, degrees=d, cut=False) for d in (1, 2, 3)},
    **{f"straighten_{d}": partial(_rotate, degrees=d, cut=True) for d in (1, 2, 3)},
    **{f"crop_centre_{p}": partial(_crop, per_cent=p, centred=True) for p in CROPS},
    **{f"crop_off_{p}": partial(_crop, per_cent=p, centred=False) for p in CROPS},
}
"""Edits by name; together they are what a crawl of the web holds of one photograph."""
