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
from pipelines.bench import our_pairs
from pipelines.bench.figures import Figure

ORIGINALS = frozenset({"original", "aaa-orig", "orientation_1"})
TURNS = ("rotate", "rotation", "flipx", "flip-plus", "flip-minus")
"""Words of the transforms that are dihedral turns other than the mirror image."""


def published_figures(folder: Path) -> list[Figure]:
    """One figure a transform (1 for found, or the share found), and their totals.

    Raises:
        ConfigError: there is no manifest.
    """
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise ConfigError(f"{folder} has no manifest.jsonl.")
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines() if line]
    entries = [entry for entry in entries if _decodes(folder / entry["file"])]
    found = our_pairs.fingerprints([folder / entry["file"] for entry in entries])
    with tempfile.TemporaryDirectory() as scratch:
        rows = our_pairs.pairs(found, "near", Path(scratch)).pairs.tolist()
    near = {(min(a, b), max(a, b)) for a, b in rows}
    figures: list[Figure] = []
    edits: list[bool] = []
    turns: list[bool] = []
    for number, entry in enumerate(entries):
        if entry["group"] is None:
            continue
        originals = [
            row
            for row, other in enumerate(entries)
            if other["group"] == entry["group"] and other["transform"] in ORIGINALS
        ]
        # A second original (one picture under several names) is a copy of the first.
        if not originals or number == originals[0]:
            continue
        hit = any((min(number, row), max(number, row)) in near for row in originals[:1])
        name = f"{entry['group']}/{entry['transform']}"
        if entry["transform"] in ORIGINALS:
            name = f"{entry['group']}/{Path(entry['file']).name}"
        turned = any(word in entry["transform"] for word in TURNS)
        (turns if turned else edits).append(hit)
        figures.append(Figure(f"duplicates/published/{name}", float(hit), "found"))
    strangers = sum(
        entries[a]["group"] != entries[b]["group"]
        for a, b in near
        if entries[a]["group"] and entries[b]["group"]
    )
    summary = [
        Figure("duplicates/published/edits", len(edits), "files"),
        Figure(
            "duplicates/published/recall",
            round(sum(edits) / max(len(edits), 1), 4),
            "share",
            goal=0.99,
            better="higher",
        ),
        Figure("duplicates/published/turns_found", sum(turns), "files"),
        Figure("duplicates/published/turns", len(turns), "files"),
        Figure("duplicates/published/false_pairs", strangers, "pairs", goal=0),
    ]
    return [figure for figure in figures if not figure.value] + summary


def _decodes(file: Path) -> bool:
    (batch,) = decode_batches([(file.name, file.read_bytes())], PictureView(1), 1)
    return bool(batch.decoded[0])
