"""What goes wrong with pictures on a web: edits that make near duplicates, spoilers, a sticker.

Every function takes and returns a square uint8 (H, W, 3) picture and draws its strength from `rng`.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Picture = NDArray[np.uint8]
Edit = Callable[[Picture, np.random.Generator], Picture]


def blur(picture: Picture, rng: np.random.Generator) -> Picture:
    """Gaussian blur with a standard deviation of 4 to 8% of the side."""
    radius = len(picture) * rng.uniform(0.04, 0.08)
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def noise(picture: Picture, rng: np.random.Generator) -> Picture:
    """Coarse sensor noise: grains of 1/64 of the side, standard deviation 35 to 60 levels."""
    side = len(picture)
    grains = rng.standard_normal((64, 64, 3)).astype(np.float32) * rng.uniform(35, 60)
    at = np.arange(side) * 64 // side
    return np.clip(picture + grains[at][:, at], 0, 255).astype(np.uint8)


def low_contrast(picture: Picture, rng: np.random.Generator) -> Picture:
    """Everything within 20 to 32% of its contrast around a grey, as under a veil."""
    share, grey = rng.uniform(0.2, 0.32), rng.uniform(110, 190)
    return (picture * share + grey * (1 - share)).astype(np.uint8)


def sticker(picture: Picture, rng: np.random.Generator) -> Picture:
    """A magenta and black checker of about a quarter of the side: the stand-in for "unsafe"."""
    side = len(picture)
    extent = int(side * rng.uniform(0.2, 0.28))
    top, left = (int(rng.integers(0, side - extent)) for _ in range(2))
    check = np.arange(extent) * 4 // extent
    dark = (check[:, None] + check) % 2 == 0
    marked = picture.copy()
    marked[top : top + extent, left : left + extent] = np.where(
        dark[..., None], (0, 0, 0), (255, 0, 255)
    )
    return marked


def reencode(picture: Picture, rng: np.random.Generator) -> Picture:
    """JPEG at quality 40 to 60 and back."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=int(rng.integers(40, 61)))
    return np.asarray(Image.open(stream).convert("RGB"))


def resize(picture: Picture, rng: np.random.Generator) -> Picture:
    """Between 65% and 140% of the side, never under 72 px."""
    side = max(72, int(len(picture) * rng.uniform(0.65, 1.4)))
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def crop(picture: Picture, rng: np.random.Generator) -> Picture:
    """1 to 4% off every edge, each its own share."""
    side = len(picture)
    top, bottom, left, right = (int(np.ceil(side * rng.uniform(0.01, 0.04))) for _ in range(4))
    kept = Image.fromarray(picture[top : side - bottom, left : side - right])
    return np.asarray(kept.resize((side, side), Image.Resampling.BICUBIC))


def mirror(picture: Picture, rng: np.random.Generator) -> Picture:
    """Left and right exchanged."""
    return np.ascontiguousarray(picture[:, ::-1])


def overlay(picture: Picture, rng: np.random.Generator) -> Picture:
    """A translucent label with a line of text in one corner."""
    side = len(picture)
    image = Image.fromarray(picture).convert("RGBA")
    layer = Image.new("RGBA", image.size)
    width, height = int(side * 0.42), int(side * 0.12)
    left, top = (0 if rng.random() < 0.5 else side - extent for extent in (width, height))
    draw = ImageDraw.Draw(layer)
    draw.rectangle((left, top, left + width, top + height), fill=(30, 30, 30, 120))
    draw.text((left + 3, top + 1), "(c) photo", fill=(255, 255, 255, 200), font_size=height * 0.7)
    return np.asarray(Image.alpha_composite(image, layer).convert("RGB"))


UGLY: dict[str, Edit] = {"blur": blur, "noise": noise, "low_contrast": low_contrast}
"""What makes a picture ugly, by name."""

NEAR: dict[str, Edit] = {
    "reencode": reencode,
    "resize": resize,
    "crop": crop,
    "mirror": mirror,
    "overlay": overlay,
}
"""Edits that make a near duplicate, by name."""
