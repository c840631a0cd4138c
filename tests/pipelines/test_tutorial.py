"""The tutorial of the documentation does what it says: its commands, in its order, over HTTP."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import cli
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"```(bash|text)\n(.*?)```", re.DOTALL)
# What may differ from machine to machine: numbers, a captioner's fingerprint, widths of columns.
DIFFERS = re.compile(r"captioner-[0-9a-f]+|[-+]?\d[\d,.]*%?|\s+|-{2,}")


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The page's fenced blocks, with a free port; `python` and `caplab` are this environment's."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    page = PAGE.read_text(encoding="utf-8").replace("8901", str(free_port()))
    found = BLOCK.findall(page)
    assert sum(kind == "bash" for kind, _ in found) >= 10
    return found


def commands(block: str) -> list[list[str]]:
    """The arguments of each command of a block of nothing but `caplab ...`; else none."""
    lines = block.replace("\\\n", " ").splitlines()
    if not all(line.startswith("caplab ") for line in lines):
        return []
    return [shlex.split(line)[1:] for line in lines]


def printed(block: str) -> str:
    """What the commands of a block print, which have to succeed."""
    if not (called := commands(block)):
        shell = ["bash", "-euo", "pipefail", "-c", block]
        return subprocess.run(shell, check=True, stdout=subprocess.PIPE, text=True).stdout
    # In this process: starting Python and torch anew costs more than what a command does here.
    told = ""
    for arguments in called:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        told += result.stdout
    return told


def lines(text: str) -> list[str]:
    """Its lines, without what may differ."""
    return [DIFFERS.sub("", line) for line in text.splitlines() if line.strip()]


@pytest.mark.usefixtures("one_process")
def test_every_command_of_the_tutorial_runs_and_prints_what_the_page_shows(
    blocks: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *road, (_, end) = blocks
    assert end.startswith("kill ")
    told = ""
    try:
        for kind, block in road:
            if kind == "bash":
                told = printed(block)
                continue
            missing = [line for line in lines(block) if line not in lines(told)]
            assert not missing, told
    finally:
        printed(end)
    assert (tmp_path / "runs" / "first" / "pipeline" / "model_index.json").is_file()
    assert (tmp_path / "runs" / "captions" / "report.html").is_file()
