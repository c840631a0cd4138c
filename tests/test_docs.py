"""The documentation speaks of files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# `curate/base/files.py`, `examples/x.py`, `curate/scoring/`; not the tables of a dataset.
PLACE = re.compile(
    r"(?<![\w./-])((?:curate|recaption|train|pipelines|tests|examples|docs)/[\w./-]*\w/?)"
)
MODULE = re.compile(r"(?<![\w./-])((?:curate|recaption|train|pipelines)(?:\.[a-z_]+)+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_module_that_a_page_names_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    # train/00000 is a folder of an export; train/PRESET/... and train/memory/... are figures.
    other = re.compile(r"train/(0|photo-64/|world-small/|memory|pictures|\d)")
    places = [place for place in PLACE.findall(text) if not other.match(place)]
    lost = [place for place in places if not (ROOT / place.rstrip("/.")).exists()]
    for name in MODULE.findall(text):
        place = ROOT / Path(*name.split("."))
        # The last part may be a name inside the module.
        if not any(p.with_suffix(".py").exists() or p.is_dir() for p in (place, place.parent)):
            lost.append(name)
    assert not lost
