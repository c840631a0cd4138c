"""Presets through the command: a plan, caches, a run that is killed, the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.cli import cli
from tests.train import roads
from tests.train.test_exported_model import drawn_by_the_card
from train.data.cached import CachedPictures
from train.data.receipt import check_receipt
from train.sample import generate
from train.settings import TrainSettings

PRESETS = ["pixart", "world-small"]


def arguments(folder: Path, name: str, *more: object) -> list[str]:
    """Of the command, for a preset on a dataset of its own."""
    told = ["--selection", "all", "--model", folder / f"{name}.yaml", "--cpus", 1]
    return [str(part) for part in ["train", folder / "data", *told, "--runner", "local", *more]]


def called(*parts: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli, list(parts), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def prepared(folder: Path, name: str, **train: object) -> TrainSettings:
    """A dataset and a preset's file in `folder`."""
    roads.make_data(folder / "data")
    file = roads.preset_file(name, folder, roads.published(name, folder), **train)
    return TrainSettings(model=str(file))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_planned_precomputed_trained_and_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = prepared(tmp_path, name, allow_unknown_words=True)
    out = tmp_path / "run"
    plan = called(*arguments(tmp_path, name, "--out", out, "--dry-run"))
    assert "5 steps of 4 pictures" in plan
    assert "<script" not in (tmp_path / "run.html").read_text()
    assert not out.exists()
    written = called(*arguments(tmp_path, name, "--precompute"))
    assert ("latents" if name == "pixart" else "pictures") in written
    read = roads.opened(Dataset.open(tmp_path / "data"), settings)
    assert isinstance(read.pictures, CachedPictures)
    assert "5 steps done" in called(*arguments(tmp_path, name, "--out", out))
    assert not check_receipt(out)
    own = generate(roads.exactly(out), ["a red circle"], seed=5)[0]
    assert roads.apart(own, drawn_by_the_card(out / "pipeline", 5, monkeypatch)) <= 2


@pytest.mark.faults
@pytest.mark.parametrize("name", PRESETS)
def test_a_killed_run_ends_as_the_unbroken_one(name: str, tmp_path: Path) -> None:
    told = {"steps": 60, "checkpoint_every": 1, "grid_size": 0, "allow_unknown_words": True}
    prepared(tmp_path, name, **told)
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [sys.executable, "-m", "pipelines.cli", *arguments(tmp_path, name, "--out", run)]
    process = subprocess.Popen(
        tied(command), env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not roads.checkpoints(run) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < max(roads.checkpoints(run)) < 60
    assert not (run / "summary.json").exists()
    assert "60 steps done" in called(*arguments(tmp_path, name, "--out", run))
    assert "60 steps done" in called(*arguments(tmp_path, name, "--out", whole))
    assert roads.losses(run) == roads.losses(whole)
    files = sorted(path.relative_to(run) for path in run.glob("pipeline/*/*.safetensors"))
    assert files
    assert all((run / file).read_bytes() == (whole / file).read_bytes() for file in files)
    assert not check_receipt(run)
