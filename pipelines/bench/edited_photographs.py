"""Photographs and their edits on disk, for every tool that `caplab bench duplicates` compares."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from curate.pictures.decode import to_rgb
from pipelines.bench.photo_edits import EDITS
from pipelines.bench.photographs import is_held_out, is_photographic, photograph_files

_LONGEST = 1024


@dataclass(frozen=True)
class EditedPhotographs:
    """originals/00012.jpg and edits/crop_off_8/00012.jpg, which shows the same photograph."""

    folder: Path
    files: list[Path]
    """The source of originals/NNNNN, by number."""
    edited: list[int]
    """Numbers of the photographs that were edited; no training of ours ever saw one."""
    photographic: frozenset[int] = frozenset()
    """Those of `edited` that are no charts, drawings or screens."""

    @property
    def originals(self) -> list[Path]:
        """All original photographs, by number."""
        return [self.original(number) for number in range(len(self.files))]

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
    originals = folder / "originals"
    originals.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        shutil.copyfile(file, originals / f"{number:05d}{file.suffix.lower()}")
    held_out = [number for number, file in enumerate(files) if is_held_out(file)]
    spread = np.linspace(0, len(held_out), min(limit, len(held_out)), endpoint=False).astype(int)
    edited = [held_out[place] for place in spread]
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
        for place, name in enumerate(EDITS):
            made = EDITS[name](image, np.random.default_rng([seed, place, number]))
            (folder / "edits" / name / f"{number:05d}.jpg").write_bytes(made)
    return EditedPhotographs(folder, files, edited, frozenset(photographic))
