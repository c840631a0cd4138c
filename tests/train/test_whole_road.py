"""The whole road of every preset: shards, caches, a run that is killed and goes on, diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curate.store.dataset import Dataset
from tests.train import roads
from tests.train.test_exported_model import drawn_by_the_card
from train.assemble import build_model
from train.data.cached import CachedPictures, CachedText
from train.data.pictures import TarPictures
from train.data.receipt import check_receipt
from train.model import Trained
from train.sample import generate
from train.settings import TrainSettings, model_config
from train.validation import GRID_SEED

PROMPT = "a red circle"  # of the cards


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def data(home: Path) -> Dataset:
    return roads.make_data(home / "data")


def reads(data: Dataset, settings: TrainSettings) -> tuple[type, bool]:
    """What a run reads its pictures from, and whether it reads features of texts."""
    opened = roads.opened(data, settings)
    return type(opened.pictures), isinstance(opened.text, CachedText)


# Those whose classes others have as well, and the dearest one, are for `make faults`.
SELDOM = ("sd2", "dit-33m", "sdxl")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.faults] * (name in SELDOM)) for name in roads.PRESETS],
)
def test_a_preset_goes_the_whole_road(
    name: str, home: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = roads.preset_file(name, tmp_path, roads.published(name, home))
    # The world's words are closed, and these captions are of no world.
    settings = TrainSettings(model=str(file), allow_unknown_words=name == "world-small")
    config = model_config(settings)
    trains_text = any(text.trainable for text in config.text)
    run, whole, live = (tmp_path / each for each in ("run", "whole", "live"))

    # Precomputed, and read from there: the same steps as without.
    done = roads.write_caches(data, settings)
    kinds = ["pictures" if config.latents.kind == "pixels" else "latents"]
    kinds += [] if trains_text else ["text"]
    assert [part.kind for part in done.parts] == kinds
    assert reads(data, settings) == (CachedPictures, not trains_text)
    uncached = settings.model_copy(update={"cache": tmp_path / "none"})
    assert reads(data, uncached) == (TarPictures, False)
    with pytest.raises(roads.Stopped):
        roads.run(data, uncached, live, on_step=roads.stop_after(3))

    # Stopped and resumed: the weights of the unbroken run.
    unbroken = roads.run(data, settings, whole)
    np.testing.assert_allclose(roads.losses(whole)[:2], roads.losses(live), rtol=1e-4)
    with pytest.raises(roads.Stopped):
        roads.run(data, settings, run, on_step=roads.stop_after(3))
    assert roads.checkpoints(run) == [2]
    resumed = roads.run(data, settings, run)
    assert resumed.weights == unbroken.weights
    assert roads.losses(run) == roads.losses(whole)
    assert not check_receipt(run)

    # Loaded again: the pictures that the loop itself drew, and those of diffusers.
    loaded = roads.exactly(run)
    opened = roads.opened(data, settings)
    grid = generate(loaded, opened.validation()[1]["descriptive"], GRID_SEED)
    drawn = roads.tiles(run / "grids" / "step-000005.png", len(grid))
    assert roads.apart(grid, drawn) <= 1
    own = generate(loaded, [PROMPT], seed=5)[0]
    new = build_model(loaded.config, settings, opened.index.texts())
    untrained = generate(Trained(new, settings, loaded.config), [PROMPT], seed=5)[0]
    assert roads.apart(own, untrained) > 10
    assert roads.apart(own, generate(loaded, ["sks cat"], seed=5)[0]) > 0
    by_card = drawn_by_the_card(run / "pipeline", 5, monkeypatch)
    print(f"\nROAD {name}: {roads.apart(own, by_card)} of 255")
    assert roads.apart(own, by_card) <= 2

    # A base of the next run: what it starts from draws the same picture.
    still = {"init_from": str(run), "steps": 1, "adamw_learning_rate": 1e-12, "grid_size": 0}
    still |= {"muon_learning_rate": 0.0, "weight_decay": 0.0}
    roads.run(data, settings.model_copy(update=still), tmp_path / "tuned")
    tuned = roads.exactly(tmp_path / "tuned")
    assert roads.apart(own, generate(tuned, [PROMPT], seed=5)[0]) <= 1
