"""The parts of `caplab bench train`, on a network of a few thousand parameters."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.train import on_gpu
from pipelines.bench.train.decode import decode_figures
from pipelines.bench.train.diffusers_style import ImageFolder
from pipelines.bench.train.memory import caption, coloured, memory_figures
from pipelines.bench.train.pictures import SELECTION, captioned, repeated
from pipelines.bench.train.step import StepRun, step_figures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return captioned([], 12, tmp_path_factory.mktemp("pictures"))


def test_the_step_stands_beside_the_bare_one_diffusers_loop_and_the_matmul(
    pictures, tmp_path
) -> None:
    run = StepRun("tiny-test", "fp32", "cpu", batch_size=4, steps=2, warm_up=1, rounds=1)
    figures = step_figures(pictures, tmp_path, run)
    assert {figure.peer for figure in figures} == {"bare step", "diffusers' loop", "matmul"}
    assert all(figure.value > 0 and figure.ratio > 0 for figure in figures)
    goals = [(figure.peer, figure.goal) for figure in figures if figure.goal is not None]
    assert goals == [("bare step", 0.95), ("diffusers' loop", 1.3)]


def test_pictures_of_tars_and_caches_stand_beside_plain_ones(pictures, tmp_path) -> None:
    names = [figure.name for figure in decode_figures(pictures, tmp_path, "tiny-test", (16,))]
    assert names == ["train/pictures/16/decoded", "train/pictures/16/cached"]


def test_the_peer_sees_the_pictures_as_its_scripts_do(pictures, tmp_path) -> None:
    (_, content, text), *_ = iter_shard(pictures, pictures.shards()[0])
    (tmp_path / "0.jpg").write_bytes(content)
    seen = ImageFolder([tmp_path / "0.jpg"], [text], 32)[0]
    assert seen["pixel_values"].shape == (3, 32, 32)
    assert -1 <= float(seen["pixel_values"].min()) < 0 < float(seen["pixel_values"].max()) <= 1
    assert seen["caption"] == text


def test_repeated_pictures_have_rows_and_texts_of_their_own(tmp_path) -> None:
    dataset = repeated(tmp_path, 70, [coloured(n) for n in range(3)], (16, 16), caption)
    stored = list(iter_shard(dataset, "00000"))
    assert len({key for key, _, _ in stored}) == len(dataset.selection_keys(SELECTION)) == 70
    assert stored[0][1] == stored[3][1] != stored[1][1]
    assert len({caption(row) for row in range(1000)}) == 1000


def test_memory_is_that_of_a_process_which_trained(tmp_path) -> None:
    figures = memory_figures(tmp_path, [300])
    assert [figure.name.split("/")[-1] for figure in figures] == [
        "peak",
        "until_first_step",
        "wall",
    ]
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.parametrize("part", ["parity", "pixart", "world"])
def test_what_is_for_a_gpu_runs_on_a_cpu(part, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(on_gpu, "TINY", True)
    monkeypatch.setattr(on_gpu, "DEVICE", "cpu")
    torch.manual_seed(0)
    figures = on_gpu.measure(part, tmp_path)
    assert all(np.isfinite(figure.value) for figure in figures)
    assert list(tmp_path.glob("*-*")) == ([tmp_path / "world-grid.png"] if part == "world" else [])


def test_the_script_says_which_part_failed(tmp_path) -> None:
    script = Path(on_gpu.__file__).with_name("gpu.sh")
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": "false"}
    done = subprocess.run(["bash", script, "parity", "world"], env=environment, timeout=60)
    assert done.returncode == 1
    told = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert [(part["part"], part["exit"]) for part in told] == [("parity", 1), ("world", 1)]
    assert (tmp_path / "world.log").exists()
