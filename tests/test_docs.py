"""The documentation speaks of files, pages, commands and options that are there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pipelines.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INDEX = ROOT / "docs" / "README.md"
# `curate/base/files.py`, `examples/x.py`, `curate/scoring/`; not the tables of a dataset.
PLACE = re.compile(
    r"(?<![\w./-])((?:curate|recaption|train|pipelines|tests|examples|docs)/[\w./-]*\w/?)"
)
LINK = re.compile(r"\]\(([^)#\s:]*)(?:#([^)\s]+))?\)")
# What follows `caplab` on a line, up to a comment, the end of a code span or of a table's cell.
CALL = re.compile(r"caplab +([a-z][a-z-]*)([^`|#\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
MODULE = re.compile(r"(?<![\w./-])((?:curate|recaption|train|pipelines)(?:\.[a-z_]+)+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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


def headings(page: Path) -> set[str]:
    """The names under which GitHub lets one link to a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path):
    lost = []
    for place, heading in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (heading and heading not in headings(target)):
            lost.append(f"{place}#{heading}")
    assert not lost


def test_the_index_names_every_page():
    named = {place for place, _ in LINK.findall(INDEX.read_text(encoding="utf-8"))}
    assert not {page.name for page in PAGES[1:]} - {INDEX.name} - named


def test_every_command_and_option_that_a_page_calls_is_there():
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, rest in CALL.findall(text):
            command: click.Command | None = cli.get_command(click.Context(cli), name)
            words = rest.split()
            while isinstance(command, click.Group) and words and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            if command is None:
                wrong.append(f"{page.name}: caplab {name}")
                continue
            if isinstance(command, click.Group):  # named as a whole
                continue
            known = {o for param in command.params for o in (*param.opts, *param.secondary_opts)}
            wrong += [
                f"{page.name}: caplab {name} {option}"
                for option in OPTION.findall(" ".join(words))
                if option not in known
            ]
    assert not wrong
