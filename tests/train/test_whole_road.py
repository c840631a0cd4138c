"""The whole road of every preset: shards, caches, a run that is killed and goes on, diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from curate.store.dataset import Dataset
from tests.train import roads
from tests.train import tiny_families as families
from tests.train.test_exported_model import drawn_by_the_card
from train.data.cached import CachedPictures, CachedText
from train.data.pictures import TarPictures
from train.data.receipt import check_receipt
from train.model import Trained, build_model, load_trained
from train.run import RunSummary, train
from train.sample import generate
from train.settings import TrainSettings, model_config
from train.validation import GRID_SEED

PROMPT = "a red circle"  # of the cards


class Stopped(BaseException):
    """As a signal ends a run."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return roads.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path | None]:
    """The tiny pipeline that a preset names."""
    made: dict[Any, Path] = {}

    def of(name: str) -> Path | None:
        make = roads.PRESETS[name].source
        if make is None:
            return None
        if make not in made:
            torch.manual_seed(0)
            made[make] = families.saved(make(), tmp_path_factory.mktemp(name) / "published")
        return made[make]

    return of


def trained(data: Dataset, settings: TrainSettings, out: Path, **more: Any) -> RunSummary:
    """A run, silent."""
    more = {"on_step": lambda done, total: None, "say": lambda sentence: None, **more}
    return train(data, settings, out, "all", **more)


def caches_of(data: Dataset, settings: TrainSettings) -> tuple[type, bool]:
    """What a run reads its pictures from, and whether it reads features of texts."""
    opened = roads.opened(data, settings)
    return type(opened.pictures), isinstance(opened.text, CachedText)


def stop_after(step: int) -> Callable[[int, int], None]:
    def on_step(done: int, total: int) -> None:
        if done == step:
            raise Stopped

    return on_step


def losses(run: Path) -> list[float]:
    found: list[float] = pq.read_table(run / "metrics.parquet").column("loss").to_pylist()
    return found


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.stem) for path in run.glob("checkpoints/*.safetensors"))


def tiles(grid: Path, count: int) -> NDArray[np.uint8]:
    """The pictures (N, 32, 32, 3) of a grid in one row, each enlarged three times."""
    with Image.open(grid) as image:
        pixels = np.asarray(image)[4:100]
    return np.stack([pixels[1::3, 4 + 100 * n :][:, 1:96:3] for n in range(count)])


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """The largest difference of a channel, of 255."""
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("name", roads.PRESETS)
def test_a_preset_goes_the_whole_road(
    name: str,
    data: Dataset,
    source: Callable[[str], Path | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = TrainSettings(model=str(roads.preset_file(name, tmp_path, source(name))))
    trains_text = any(text.trainable for text in model_config(settings).text)

    # Precomputed, and read from there: the same steps as without.
    done = roads.write_caches(data, settings)
    kinds = ["pictures"] if trains_text else ["latents", "text"]
    assert [part.kind for part in done.parts] == kinds
    assert caches_of(data, settings) == (CachedPictures, not trains_text)
    live = settings.model_copy(update={"cache": tmp_path / "none"})
    assert caches_of(data, live) == (TarPictures, False)
    with pytest.raises(Stopped):
        trained(data, live, tmp_path / "live", on_step=stop_after(3))

    # Killed and resumed: the weights of the unbroken run.
    whole = trained(data, settings, tmp_path / "whole")
    np.testing.assert_allclose(losses(tmp_path / "whole")[:2], losses(tmp_path / "live"), rtol=1e-4)
    with pytest.raises(Stopped):
        trained(data, settings, tmp_path / "run", on_step=stop_after(3))
    assert checkpoints(tmp_path / "run") == [2]
    resumed = trained(data, settings, tmp_path / "run")
    assert resumed.weights == whole.weights
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert not check_receipt(tmp_path / "run")

    # Loaded again, by us and by diffusers: the picture that the loop itself drew.
    loaded = load_trained(tmp_path / "run")
    opened = roads.opened(data, settings)
    prompts = opened.validation()[1]["descriptive"]
    grid = generate(loaded, prompts, GRID_SEED)
    assert apart(grid, tiles(tmp_path / "run" / "grids" / "step-000005.png", len(grid))) <= 1
    own = generate(loaded, [PROMPT], seed=5)[0]
    untrained = Trained(
        build_model(loaded.config, settings, opened.index.texts()), settings, loaded.config
    )
    assert apart(own, generate(untrained, [PROMPT], seed=5)[0]) > 10
    assert apart(own, generate(loaded, ["sks cat"], seed=5)[0]) > 0
    by_card = drawn_by_the_card(tmp_path / "run" / "pipeline", 5, monkeypatch)
    if own.shape != by_card.shape:  # each pixel is a square of 8
        by_card = by_card[4::8, 4::8]
    print(f"\nROAD {name}: {apart(own, by_card)} of 255")
    assert apart(own, by_card) <= 2
