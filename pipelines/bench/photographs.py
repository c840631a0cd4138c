"""Photographs for benchmarks: which files, and which of them no training of ours ever saw."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from curate.base.errors import ConfigError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
HELD_OUT = 0.4
"""Share of the files that training leaves alone."""
FLAT_SHARE = 0.25
"""A picture with more flat cells than this is a chart, a drawing or a screen: a graphic."""
_CELLS, _CELL = 32, 8
_FLAT = 2.0  # grey levels of standard deviation


def photograph_files(folders: list[Path]) -> list[Path]:
    """All pictures below the folders, by name; a folder called "originals" only doubles others.

    Raises:
        ConfigError: a folder is missing or there is no picture in it.
    """
    files: list[Path] = []
    for folder in folders:
        found = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and "originals" not in path.parts
        )
        if not found:
            raise ConfigError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
        files += found
    return files


def is_held_out(path: Path) -> bool:
    """Whether training leaves this file alone: decided by the hash of its name, once for all."""
    first = hashlib.sha256(path.name.encode()).digest()[:4]
    return int.from_bytes(first, "big") < HELD_OUT * 2**32


def is_photographic(image: Image.Image) -> bool:
    """Whether less than a quarter of the picture is flat.

    The picture in grey at 256 x 256 points, in cells of 8 x 8; a cell is flat when its standard
    deviation is below 2 of 255 grey levels. Paper and plain colour are flat, photographs hardly
    anywhere. A rule of thumb, blind to what any tool finds: a planet before a black sky counts as a
    graphic, a dense table as a photograph.
    """
    side = _CELLS * _CELL
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), np.float32)
    cells = grey.reshape(_CELLS, _CELL, _CELLS, _CELL).std(axis=(1, 3))
    return bool((cells < _FLAT).mean() < FLAT_SHARE)
