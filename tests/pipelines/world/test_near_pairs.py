"""Near duplicates among drawn scenes, which share their grounds and differ in a thing or two."""

import pyarrow.parquet as pq
from PIL import Image

from pipelines.bench.duplicates import our_pairs
from pipelines.world.scene import WorldConfig
from pipelines.world.web import build_web


def test_near_pairs_of_the_synthetic_web_are_its_copies(tmp_path):
    web = build_web(tmp_path / "web", WorldConfig.small(), 500, seed=5)
    truth = pq.read_table(web.truth).to_pylist()
    rows = [row for row in truth if row["readable"] and row["side"] >= 64]
    (tmp_path / "stored").mkdir()
    files = [tmp_path / "stored" / f"{number:05d}.png" for number in range(len(rows))]
    for row, file in zip(rows, files, strict=True):  # at 64 px, as the demo stores them
        with Image.open(web.directory / row["path"]) as picture:
            picture.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS).save(file)
    found = our_pairs.fingerprints(files)
    groups = [row["duplicate_group"] for row in rows]
    (tmp_path / "scratch").mkdir()
    pairs = our_pairs.pairs(found, "near", tmp_path / "scratch").pairs
    right = sum(groups[a] == groups[b] >= 0 for a, b in pairs)
    there = sum(groups.count(group) - 1 for group in set(groups) - {-1})
    assert there == 40
    assert right / len(pairs) >= 0.9
    assert right / there >= 0.95
