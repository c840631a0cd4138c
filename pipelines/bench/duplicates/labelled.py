"""Pictures of which it is known who copies whom: recall, false pairs and cost of the near level.

`DATASETS` is the table of them, name -> what makes the list of pictures from a folder. A dataset is
added as a row there; it is measured by `caplab bench duplicates --labelled NAME=FOLDER`, and its
figures are named duplicates/NAME/.

published   a folder with `manifest.jsonl`, one JSON object a file with `file` (path below the
            folder), `group` (what it shows) and `transform` (what was done to it), null where
            unknown: UKBench edits, PDQ's bridge, EXIF orientations. Turns by a quarter or a half
            and flips upside down are no edits that we look for (docs/duplicates.md).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curate.base.errors import ConfigError
from curate.pictures.decode import PictureView, decode_batches
from pipelines.bench.common.figures import Figures
from pipelines.bench.duplicates.our_pairs import fingerprints, pairs

ORIGINALS = frozenset({"original", "aaa-orig", "orientation_1"})
TURNS = ("rotate", "rotation", "flipx", "flip-plus", "flip-minus")
"""Words of the transforms that are dihedral turns other than the mirror image."""


@dataclass(frozen=True)
class Labelled:
    """A picture that decodes. Pictures of one group are copies of its first original."""

    file: Path
    group: str | None
    """None where it is unknown what the picture shows."""
    name: str
    """In a figure, where it is missed."""
    original: bool = False
    sought: bool = True
    """Whether a search should find it; what it should not is counted apart."""


def labelled_figures(name: str, folder: Path) -> Figures:
    """What was missed, and the totals.

    Raises:
        ConfigError: there is no such dataset, or the folder is none.
    """
    if name not in DATASETS:
        raise ConfigError(f"There is no dataset {name!r}; there are {', '.join(DATASETS)}.")
    entries = DATASETS[name](folder)
    found = fingerprints([entry.file for entry in entries])
    with tempfile.TemporaryDirectory() as scratch:
        rows = pairs(found, "near", Path(scratch)).pairs.tolist()
    near = {frozenset(row) for row in rows}
    first: dict[str | None, int] = {}
    for number, entry in enumerate(entries):
        if entry.original:  # a second one (one picture under several names) is a copy of the first
            first.setdefault(entry.group, number)
    figures = Figures(f"duplicates/{name}")
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for number, entry in enumerate(entries):
        original = first.get(entry.group) if entry.group is not None else None
        if original not in (None, number):
            hits[entry.sought].append(frozenset((number, original)) in near)
            if not hits[entry.sought][-1]:
                figures.add(entry.name, 0, "found")
    known = [[group for row in pair if (group := entries[row].group) is not None] for pair in near]
    figures.add("edits", len(hits[True]), "files")
    figures.add("recall", sum(hits[True]) / max(len(hits[True]), 1), "share", at_least=0.99)
    figures.add("turns_found", sum(hits[False]), "files")
    figures.add("turns", len(hits[False]), "files")
    figures.add("false_pairs", sum(len(set(pair)) == 2 for pair in known), "pairs", at_most=0)
    figures.add("cpu_per_image", 1000 * found.cpu_seconds / len(entries), "ms")
    return figures


def _published(folder: Path) -> list[Labelled]:
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise ConfigError(f"{folder} has no manifest.jsonl.")
    entries = []
    for row in map(json.loads, manifest.read_text("utf-8").splitlines()):
        file, transform = folder / row["file"], row["transform"] or ""
        (batch,) = decode_batches([(file.name, file.read_bytes())], PictureView(1), 1)
        if batch.decoded[0]:
            original = transform in ORIGINALS
            name = f"{row['group']}/{file.name if original else transform}"
            turned = any(word in transform for word in TURNS)
            entries.append(Labelled(file, row["group"], name, original, not turned))
    return entries


DATASETS: dict[str, Callable[[Path], list[Labelled]]] = {"published": _published}
