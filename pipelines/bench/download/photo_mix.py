"""A mix of JPEGs like the web's, made of real photographs: sizes, qualities and detail.

Photographs of about 500 px are easy to have and too small for a downloader's benchmark, and
enlarging them would make detail that no decoder has to work for. So each picture is a mosaic of
photographs at their own size, cut to 400 to 1,600 px on its longer side (evenly in the logarithm),
with the aspect ratios and JPEG qualities that are common. The same folder gives the same mix.
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from curate.base.errors import ConfigError
from curate.base.progress import progress
from pipelines.make_weights.photographs import photograph_files

_SHORTEST, _LONGEST = 400, 1600
_ASPECTS = (1.0, 4 / 3, 4 / 3, 3 / 2, 3 / 2, 16 / 9)
_QUALITIES = (75, 80, 85, 90, 92)
_PROGRESSIVE = 0.2  # share of the files
JPEGS = frozenset({".jpg", ".jpeg"})
_SMALLEST_TILE = 240  # pixels; smaller photographs are left out


def make_mix(photographs: Path, out: Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` mosaics as OUT/00000.jpg and so on; those of an earlier call are kept.

    Raises:
        ConfigError: too few photographs of a useful size.
    """
    jpegs = photograph_files([photographs], JPEGS)
    files = [path for path in jpegs if _is_useful(path)]
    if len(files) < 20:
        raise ConfigError(f"{photographs} has {len(files)} photographs of 240 px; 20 are needed.")
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{number:05d}.jpg" for number in range(count)]
    with progress(count, "mixing photographs", "picture") as bar:
        for number, path in enumerate(paths):
            if not path.exists():
                chance = random.Random(f"{seed}/{number}")
                picture = _mosaic(files, chance)
                options = {"progressive": True} if chance.random() < _PROGRESSIVE else {}
                temporary = path.with_suffix(".tmp")
                picture.save(temporary, "JPEG", quality=chance.choice(_QUALITIES), **options)
                temporary.rename(path)
            bar.update(1)
    return paths


def _is_useful(path: Path) -> bool:
    with Image.open(path) as image:
        return min(image.size) >= _SMALLEST_TILE and image.mode == "RGB"


def _mosaic(files: list[Path], chance: random.Random) -> Image.Image:
    longer = round(_SHORTEST * (_LONGEST / _SHORTEST) ** chance.random())
    size = (longer, round(longer / chance.choice(_ASPECTS)))
    if chance.random() < 0.35:
        size = size[::-1]
    mosaic = Image.new("RGB", size)
    top = 0
    while top < size[1]:
        left, row = 0, size[1] - top
        while left < size[0]:
            with Image.open(chance.choice(files)) as tile:
                mosaic.paste(tile.convert("RGB"), (left, top))
                row = min(row, tile.height)
                left += tile.width
        top += row
    return mosaic
