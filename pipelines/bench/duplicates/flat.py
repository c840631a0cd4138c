"""`caplab bench duplicates --flat`: flat graphics, the hard case: few things on one of few grounds.

A synthetic web knows its duplicates. Scenes share hashes by the thousand, so what counts is how
many candidates are ruled out before their pixels are compared: CPU seconds a sample, of the search
alone.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from curate.pictures.resize import Resizer, StoredImage
from curate.pictures.settings import PictureSettings
from pipelines.bench.common.figures import Figures
from pipelines.bench.duplicates.our_pairs import fingerprints, pairs
from pipelines.world.scene import WorldConfig
from pipelines.world.web import build_web

SIDE = 64
"""Pixels of a stored picture, as in the demo."""
GOAL_CPU, GOAL_FOUND = 0.01, 0.95


def flat_figures(out: Path | None = None, rows: int = 1500, seed: int = 0) -> Figures:
    """Cost a sample, recall and precision of `near` pairs, exact copies among them.

    Args:
        out: folder for the synthetic web, which is gone afterwards.
        rows: of the web; 50 at the least. Cost: 12 CPU ms a row, and the search.
    """
    with tempfile.TemporaryDirectory(prefix="caplab-flat-", dir=out) as folder:
        root = Path(folder)
        web = build_web(root / "web", WorldConfig.small(), rows, seed)
        resizer = Resizer(PictureSettings(image_size=SIDE, min_side=SIDE))
        files: list[Path] = []
        groups: list[int] = []
        for row in pq.read_table(web.truth, columns=["path", "duplicate_group"]).to_pylist():
            path = web.directory / row["path"]
            stored = resizer.outcome(path.read_bytes()) if path.exists() else None
            if isinstance(stored, StoredImage):
                files.append(root / f"{len(files):06d}.jpg")
                files[-1].write_bytes(stored.content)
                groups.append(row["duplicate_group"])
        found = fingerprints(files)
        started = time.process_time()
        near = pairs(found, "near", root).pairs
        seconds = time.process_time() - started
    right = sum(groups[a] == groups[b] >= 0 for a, b in near.tolist())
    sizes = [groups.count(group) for group in set(groups) - {-1}]
    there = sum(size * (size - 1) // 2 for size in sizes)
    figures = Figures("duplicates/flat")
    figures.add("samples", len(files), "samples")
    figures.add("cpu_per_sample", seconds / len(files), "s", at_most=GOAL_CPU)
    figures.add("recall", right / there, "share", at_least=GOAL_FOUND)
    figures.add("precision", right / max(len(near), 1), "share", at_least=GOAL_FOUND)
    return figures
