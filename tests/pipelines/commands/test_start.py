"""What a command imports before it knows that there is work: counted in fresh interpreters."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipelines.cli import HELP

HEAVY = (
    "torch transformers open_clip diffusers timm pyarrow duckdb faiss numba scipy numpy PIL cv2 "
    "ray aiohttp datasets img2dataset pandas"
)
COMPUTING = "torch transformers open_clip diffusers timm faiss numba ray"
CODE = """
import contextlib, io, sys
from pipelines.cli import cli
lines, unwanted = {lines!r}, {unwanted!r}.split()
for line in lines:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli(line, prog_name="caplab")
        except SystemExit as end:
            status = end.code
    assert status == {status}, f"{{line}} ended with {{status}}"
    found = [name for name in unwanted if name in sys.modules]
    assert not found, f"{{line}} imports {{found}}"
"""


def run(lines: list[list[str]], unwanted: str, status: int = 0) -> None:
    """Run commands in one fresh interpreter; none may import what is unwanted."""
    code = CODE.format(lines=lines, unwanted=unwanted, status=status)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]


def test_help_and_the_version_import_no_command():
    run([["--help"], ["--version"]], f"{HEAVY} pydantic yaml pipelines.commands")


def test_the_help_of_no_command_imports_anything_heavy():
    run([[name, "--help"] for name in HELP] + [["captioner", "fit", "--help"]], HEAVY)


def test_a_mistyped_option_imports_nothing_heavy():
    run([[name, "--no-such-option"] for name in HELP], HEAVY, status=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "a.jpg")
    (folder / "a.txt").write_text("a red square")
    return folder


def test_a_dry_run_and_the_download_import_no_models(pictures: Path, tmp_path: Path):
    # The dry run checks the default CLIP model's name and tag.
    out = ["--out", str(tmp_path / "data")]
    run(
        [
            ["curate", str(pictures), *out, "--dry-run"],
            ["curate", str(pictures), *out, "--until", "download", "--runner", "local"],
        ],
        COMPUTING,
    )
