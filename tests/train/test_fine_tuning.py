"""Fine-tuning as whole runs: published weights, adapters, a class beside, new tokens, scores."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curate.base.errors import ConfigError
from curate.base.weights import load_state_dict
from curate.store.dataset import Dataset
from tests.train import ranks, roads
from tests.train.data.small_dataset import add_scores, select
from tests.train.test_exported_model import drawn_by_the_card
from train.data.receipt import check_receipt
from train.sample import generate
from train.settings import TrainSettings

PROMPT = "a red circle"  # of the cards


def seldom(always: list[str], heavy: list[str]) -> list[Any]:
    """Cases of a test, some of them for `make faults` alone."""
    return [*always, *(pytest.param(each, marks=pytest.mark.faults) for each in heavy)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def data(home: Path) -> Dataset:
    dataset = roads.make_data(home / "data")
    keys = dataset.selection_keys("all")
    select(dataset, "mine", keys[:4])
    select(dataset, "class", keys[4:])
    # Half of them have a score.
    add_scores(dataset, aesthetic={key: float(n) for n, key in enumerate(keys) if n % 2})
    return dataset


def tuned(name: str, home: Path, folder: Path, **changes: Any) -> TrainSettings:
    """A run that starts from the published pipeline of a preset."""
    source = roads.published(name, home)
    file = roads.preset_file(name, folder, source)
    return TrainSettings(model=str(file), **{"init_from": str(source), **changes})


def pair(data: Dataset, settings: TrainSettings, folder: Path) -> Path:
    """A run that was stopped and went on, held against the unbroken one."""
    unbroken = roads.run(data, settings, folder / "whole")
    with pytest.raises(roads.Stopped):
        roads.run(data, settings, folder / "run", on_step=roads.stop_after(3))
    assert roads.checkpoints(folder / "run") == [2]
    assert roads.run(data, settings, folder / "run").weights == unbroken.weights
    assert unbroken.weights
    assert not check_receipt(folder / "run")
    return folder / "run"


# ---- published weights --------------------------------------------------------------------------


@pytest.mark.parametrize("name", seldom(["sd15", "sd3", "pixart"], ["sdxl", "flux", "sana"]))
def test_published_weights_are_where_a_run_starts(
    name: str, home: Path, data: Dataset, tmp_path: Path
) -> None:
    still = {"steps": 1, "adamw_learning_rate": 1e-12, "weight_decay": 0.0, "grid_size": 0}
    run = tmp_path / "run"
    roads.run(data, tuned(name, home, tmp_path, **still), run)
    source = roads.published(name, home)
    assert source is not None
    files = sorted(path.relative_to(source) for path in source.glob("*/*.safetensors"))
    assert files
    for file in files:
        before, after = load_state_dict(source / file), load_state_dict(run / "pipeline" / file)
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            torch.testing.assert_close(after[key], tensor, rtol=0, atol=1e-9)


# ---- adapters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", seldom(["sd3", "pixart"], ["sd15", "sdxl", "flux", "sana"]))
def test_adapters_are_trained_resumed_and_drawn_by_diffusers(
    name: str, home: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tuned(
        name, home, tmp_path, lora_rank=2, lora_alpha=4.0, adamw_learning_rate=0.1, merge_lora=True
    )
    run = pair(data, settings, tmp_path)
    own = generate(roads.exactly(run), [PROMPT], seed=5)[0]
    adapters = drawn_by_the_card(run / "lora", 5, monkeypatch)
    merged = drawn_by_the_card(run / "pipeline", 5, monkeypatch)
    print(f"\nLORA {name}: {roads.apart(own, adapters)}, merged {roads.apart(own, merged)}")
    assert roads.apart(own, adapters) <= 2
    assert roads.apart(own, merged) <= 2
    base = roads.published(name, home)
    assert base is not None
    part = next(
        path.parent.name
        for path in base.glob("*/diffusion_pytorch_model.safetensors")
        if path.parent.name != "vae"
    )
    file = f"{part}/diffusion_pytorch_model.safetensors"
    before, after = load_state_dict(base / file), load_state_dict(run / "pipeline" / file)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    ends = tuple(f"{end}.weight" for end in settings.lora_targets)
    assert changed
    assert all(key.endswith(ends) for key in changed)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_adapters_on_a_quantised_base(kind: str, home: Path, data: Dataset, tmp_path: Path) -> None:
    packages = {"int8": ("bitsandbytes", "torchao"), "nf4": ("bitsandbytes",)}[kind]
    settings = tuned("pixart", home, tmp_path, lora_rank=2, quantise_base=kind)
    if not any(map(find_spec, packages)):
        with pytest.raises(ConfigError, match=f"quantise_base {kind} needs the package"):
            roads.run(data, settings, tmp_path / "run")
        pytest.skip(f"quantised weights need {' or '.join(packages)}")
    run = pair(data, settings, tmp_path)
    assert generate(roads.exactly(run), [PROMPT], seed=5)[0].std() > 2


# ---- choices of data ----------------------------------------------------------------------------


def test_prior_preservation_draws_half_of_the_class_with_its_own_weight(
    home: Path, data: Dataset, tmp_path: Path
) -> None:
    told = {"prior_selection": "class", "prior_loss_weight": 0.25, "steps": 20, "batch_size": 8}
    told |= {"validation_samples": 1, "validation_share": 0.3, "checkpoint_every": 0}
    settings = tuned("pixart", home, tmp_path, **told, aspect_buckets=False, grid_size=0)
    roads.run(data, settings, tmp_path / "run", selection="mine")
    assert not check_receipt(tmp_path / "run")
    receipt = pq.read_table(tmp_path / "run" / "receipt.parquet").to_pydict()
    of_class = set(data.selection_keys("class"))
    draws = sum(
        n for key, n in zip(receipt["key"], receipt["draws"], strict=True) if key in of_class
    )
    assert sum(receipt["draws"]) == 160
    assert abs(draws - 80) < 4 * np.sqrt(160) / 2
    opened = roads.opened(data, settings, "mine")
    (batch,) = next(iter(opened.batches(0, 1)))
    keys = opened.index.keys(batch.rows)
    assert batch.loss_weight.tolist() == [0.25 if key in of_class else 1.0 for key in keys]
    assert set(batch.loss_weight.tolist()) == {0.25, 1.0}
    # The loss is weighted: of the first step, from the same weights and noise.
    plain = settings.model_copy(update={"prior_loss_weight": 1.0, "steps": 1})
    roads.run(data, plain, tmp_path / "plain", selection="mine")
    assert roads.losses(tmp_path / "run")[0] < roads.losses(tmp_path / "plain")[0]


@pytest.mark.faults
def test_only_new_tokens_rows_are_trained_and_diffusers_reads_them(
    home: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {"<thing>": "circle", "<style>": "red"}
    settings = tuned("sdxl", home, tmp_path, new_tokens=tokens, adamw_learning_rate=0.05)
    run = pair(data, settings, tmp_path)
    assert not (run / "pipeline").exists()
    loaded, base = roads.exactly(run), roads.published("sdxl", home)
    assert base is not None
    for part, file in {
        "text_encoder": "learned_embeds",
        "text_encoder_2": "learned_embeds_2",
    }.items():
        rows = load_state_dict(run / f"{file}.safetensors")
        assert set(rows) == set(tokens)
        encoder = next(e for e in loaded.model.text.encoders if e.config.name == part)
        own = {name: p for name, p in encoder.model.named_parameters() if ".rows" not in name}
        before = load_state_dict(base / part / "model.safetensors")
        for name, tensor in before.items():
            ours = own[name.replace("token_embedding.", "token_embedding.base.")]
            assert torch.equal(ours, tensor), name
    prompt = ["a picture of <thing>"]
    own_picture = generate(loaded, prompt, seed=5)[0]
    by_card = drawn_by_the_card(run, 5, monkeypatch)
    print(f"\nTOKENS sdxl: {roads.apart(own_picture, by_card)}")
    assert roads.apart(own_picture, by_card) <= 2


def test_scores_are_told_in_training_and_asked_for_in_sampling(
    home: Path, data: Dataset, tmp_path: Path
) -> None:
    settings = tuned(
        "sd3", home, tmp_path, condition_on=("aesthetic",), condition_buckets=3, steps=6
    )
    run = pair(data, settings, tmp_path)
    opened = roads.opened(data, settings.model_copy(update={"condition_dropout_prob": 0.5}))
    told = np.concatenate([batch.conditions.numpy()[:, 0] for (batch,) in opened.batches(0, 60)])
    assert set(told) == {0, 1, 2, 3}
    # Half have no score, and half of the others are not told.
    assert abs((told > 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(told))
    pictures = [
        generate(roads.exactly(run), [PROMPT], seed=5, conditions=asked)[0]
        for asked in ({}, {"aesthetic": 0.0}, {"aesthetic": 1.0}, {"aesthetic": 3})
    ]
    assert roads.apart(pictures[1], pictures[2]) > 0
    assert roads.apart(pictures[0], pictures[2]) > 0
    assert roads.apart(pictures[2], pictures[3]) == 0
    # A run that goes on from it knows the scores.
    still = {"steps": 1, "adamw_learning_rate": 1e-12, "init_from": str(run)}
    roads.run(data, settings.model_copy(update=still), tmp_path / "again")
    tables = [roads.exactly(tmp_path / each).model.conditions.table for each in ("run", "again")]
    torch.testing.assert_close(tables[1], tables[0], rtol=0, atol=1e-9)
    again = generate(
        roads.exactly(tmp_path / "again"), [PROMPT], seed=5, conditions={"aesthetic": 1.0}
    )[0]
    assert roads.apart(again, pictures[2]) <= 1


# ---- objectives ---------------------------------------------------------------------------------

OBJECTIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "edm": ("pixart", {"objective": "edm", "prediction_type": "sample", "sampler": "euler"}),
    "edm dpm++": ("pixart", {"objective": "edm", "prediction_type": "sample"}),
    "ddpm v": (
        "sd15",
        {
            "prediction_type": "v_prediction",
            "zero_terminal_snr": True,
            "snr_gamma": 5.0,
            "sampler": "ddim",
        },
    ),
    "flow": ("sd15", {"objective": "flow", "prediction_type": "velocity", "sampler": "euler"}),
    "x0": ("pixart", {"prediction_type": "sample", "noise_schedule": "cosine"}),
}


@pytest.mark.parametrize("which", seldom(["edm"], [each for each in OBJECTIVES if each != "edm"]))
def test_another_objective_than_the_presets(
    which: str, home: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, told = OBJECTIVES[which]
    source = roads.published(name, home)
    settings = TrainSettings(model=str(roads.preset_file(name, tmp_path, source)), **told)
    run = pair(data, settings, tmp_path)
    own = generate(roads.exactly(run), [PROMPT], seed=5)[0]
    by_card = drawn_by_the_card(run / "pipeline", 5, monkeypatch)
    print(f"\nOBJECTIVE {which}: {roads.apart(own, by_card)}")
    assert own.std() > 2
    assert roads.apart(own, by_card) <= 2


# ---- several processes --------------------------------------------------------------------------


@pytest.mark.faults
def test_two_processes_train_latents_from_caches_like_one(
    home: Path, data: Dataset, tmp_path: Path
) -> None:
    source = roads.published("pixart", home)
    settings = TrainSettings(model=str(roads.preset_file("pixart", tmp_path, source)))
    roads.write_caches(data, settings)
    roads.run(data, settings, tmp_path / "one")
    ranks.run(2, ranks.trains, data, [(tmp_path / "two", settings)])
    np.testing.assert_allclose(
        roads.losses(tmp_path / "two"), roads.losses(tmp_path / "one"), rtol=1e-4
    )
    receipts = [pq.read_table(tmp_path / run / "receipt.parquet") for run in ("one", "two")]
    assert receipts[0].equals(receipts[1])
    drawn = [generate(roads.exactly(tmp_path / run), [PROMPT], seed=5)[0] for run in ("one", "two")]
    assert roads.apart(*drawn) <= 1
