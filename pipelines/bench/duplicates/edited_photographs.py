"""Photographs and their edits on disk, for every tool that `caplab bench duplicates` compares."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from curate.pictures.decode import to_rgb
from pipelines.bench.duplicates.photo_edits import EDITS
from pipelines.make_weights.photographs import is_held_out, photograph_files

_LONGEST = 1024
FLAT_SHARE = 0.25
"""A picture with more flat cells than this is a chart, a drawing or a screen: a graphic."""
_CELLS, _CELL = 32, 8
_FLAT = 2.0  # grey levels of standard deviation


@dataclass(frozen=True)
class EditedPhotographs:
    """originals/00012.jpg and edits/crop_off_8/00012.jpg, which shows the same photograph."""

    folder: Path
    files: list[Path]
    """The source of originals/NNNNN, by number."""
    edited: list[int]
    """Numbers of the photographs that were edited; no training of ours ever saw one."""
    photographic: frozenset[int]
    """Those of `edited` that are no charts, drawings or screens."""

    def original(self, number: int) -> Path:
        """One original photograph."""
        return self.folder / "originals" / f"{number:05d}{self.files[number].suffix.lower()}"

    def edits(self, name: str) -> list[Path]:
        """The edited copies of one kind, in the order of `edited`."""
        return [self.folder / "edits" / name / f"{number:05d}.jpg" for number in self.edited]


def write_edited_photographs(
    folder: Path, photographs: list[Path], limit: int, seed: int
) -> EditedPhotographs:
    """Copy all photographs below the folders, and edit `limit` of those that are held out.

    Edits are made at full size, of pictures with their longer side at most 1,024 px, and stored as
    JPEG. Cost: about 15 CPU ms an edit.
    """
    files = photograph_files(photographs)
    held_out = [number for number, file in enumerate(files) if is_held_out(file)]
    spread = np.linspace(0, len(held_out), min(limit, len(held_out)), endpoint=False).astype(int)
    edited = [held_out[place] for place in spread]
    (folder / "originals").mkdir(parents=True, exist_ok=True)
    for name in EDITS if edited else ():
        (folder / "edits" / name).mkdir(parents=True, exist_ok=True)
    photographic = set()
    for number in edited:
        with Image.open(files[number]) as opened:
            opened.load()
            image = to_rgb(ImageOps.exif_transpose(opened))
        if is_photographic(image):
            photographic.add(number)
        image.thumbnail((_LONGEST, _LONGEST))
        for place, (name, edit) in enumerate(EDITS.items()):
            made = edit(image, np.random.default_rng([seed, place, number]))
            (folder / "edits" / name / f"{number:05d}.jpg").write_bytes(made)
    data = EditedPhotographs(folder, files, edited, frozenset(photographic))
    for number, file in enumerate(files):
        shutil.copyfile(file, data.original(number))
    return data


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
