"""Recall on published near-duplicates: UKBench edits, PDQ's bridge, EXIF orientations.

The folder holds `manifest.jsonl`, one JSON object a file with `file` (path below the folder),
`group` (what it shows) and `transform` (what was done to it), as null where unknown. Turns by a
quarter or a half and flips upside down are no edits that we look for (docs/duplicates.md); they are
reported apart.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from curate.base.errors import ConfigError
from curate.pictures.decode import PictureView, decode_batches
from pipelines.bench.common.figures import Figures
from pipelines.bench.duplicates.our_pairs import fingerprints, pairs

ORIGINALS = frozenset({"original", "aaa-orig", "orientation_1"})
TURNS = ("rotate", "rotation", "flipx", "flip-plus", "flip-minus")
"""Words of the transforms that are dihedral turns other than the mirror image."""


def published_figures(folder: Path) -> Figures:
    """What was missed, and the totals.

    Raises:
        ConfigError: there is no manifest.
    """
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise ConfigError(f"{folder} has no manifest.jsonl.")
    lines = manifest.read_text("utf-8").splitlines()
    entries = [row for row in map(json.loads, lines) if _decodes(folder / row["file"])]
    found = fingerprints([folder / row["file"] for row in entries])
    with tempfile.TemporaryDirectory() as scratch:
        near = {frozenset(pair) for pair in pairs(found, "near", Path(scratch)).pairs.tolist()}
    first: dict[str | None, int] = {}
    for number, row in enumerate(entries):
        if row["transform"] in ORIGINALS:  # a second one (under another name) is a copy of it
            first.setdefault(row["group"], number)
    figures = Figures("duplicates/published")
    hits: dict[bool, list[bool]] = {True: [], False: []}  # whether it is a turn
    for number, row in enumerate(entries):
        if row["group"] is None or first.get(row["group"], number) == number:
            continue
        turned = any(word in row["transform"] for word in TURNS)
        hits[turned].append(frozenset((number, first[row["group"]])) in near)
        if not hits[turned][-1]:
            same = row["transform"] in ORIGINALS
            name = Path(row["file"]).name if same else row["transform"]
            figures.add(f"{row['group']}/{name}", 0, "found")
    groups = [{entries[number]["group"] for number in pair} - {None} for pair in near]
    figures.add("edits", len(hits[False]), "files")
    figures.add("recall", sum(hits[False]) / max(len(hits[False]), 1), "share", at_least=0.99)
    figures.add("turns_found", sum(hits[True]), "files")
    figures.add("turns", len(hits[True]), "files")
    figures.add("false_pairs", sum(len(both) == 2 for both in groups), "pairs", at_most=0)
    return figures


def _decodes(file: Path) -> bool:
    (batch,) = decode_batches([(file.name, file.read_bytes())], PictureView(1), 1)
    return bool(batch.decoded[0])
