"""Low-rank adapters and learned tokens: trained alone, saved as diffusers reads them, loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.base.errors import ConfigError, DatasetError
from tests.train.test_exported_model import drawn_by_the_card, trained_family
from train.adapters import (
    add_lora,
    add_tokens,
    load_lora,
    load_new_tokens,
    merge_lora,
    quantise,
    save_lora,
    save_new_tokens,
)
from train.assemble import Start, resolve
from train.export.pipeline import export_pipeline, export_run
from train.model import Trained
from train.sample import generate

PROMPT = ["a red circle"]
ADAPTED = ["sd15", "sdxl", "sd3", "flux", "pixart", "sana"]


def adapted(name: str, folder: Path, **settings: object) -> Trained:
    """A family with adapters that say something, as after some training."""
    told = {"lora_rank": 2, "lora_alpha": 4.0, "seed": 1, **settings}
    trained = trained_family(name, folder, **told)
    add_lora(trained.model, trained.settings)
    stir(trained)
    return trained


def stir(trained: Trained) -> None:
    """Move what is trained, as steps would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in trained.model.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_alone_are_trained_and_start_as_nothing(name: str, tmp_path: Path):
    trained = trained_family(name, tmp_path, lora_rank=2)
    before = generate(trained, PROMPT, seed=5)
    add_lora(trained.model, trained.settings)
    names = set(trained.model.trained_parameters())
    assert names
    assert all(".lora_A." in each or ".lora_B." in each for each in names)
    assert np.abs(generate(trained, PROMPT, seed=5).astype(int) - before).max() <= 1
    again = trained_family(name, tmp_path / "again", lora_rank=2)
    add_lora(again.model, again.settings)
    for each, parameter in again.model.trained_parameters().items():
        torch.testing.assert_close(parameter, trained.model.trained_parameters()[each])


@pytest.mark.parametrize("name", ADAPTED)
def test_saved_adapters_draw_the_same_picture_by_their_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = adapted(name, tmp_path)
    export_run(trained, tmp_path / "run")
    assert not (tmp_path / "run" / "pipeline").exists()
    own = generate(trained, PROMPT, seed=5)[0].astype(int)
    base = generate(trained_family(name, tmp_path / "base"), PROMPT, seed=5)[0]
    assert np.abs(own - base).max() > 10
    by_card = drawn_by_the_card(tmp_path / "run" / "lora", 5, monkeypatch)
    assert np.abs(by_card.astype(int) - own).max() <= 2


@pytest.mark.parametrize("name", ADAPTED)
def test_merged_adapters_draw_the_same_picture_as_a_whole_pipeline(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = adapted(name, tmp_path, merge_lora=True)
    own = generate(trained, PROMPT, seed=5)[0].astype(int)
    export_run(trained, tmp_path / "run")
    by_card = drawn_by_the_card(tmp_path / "run" / "pipeline", 5, monkeypatch)
    assert np.abs(by_card.astype(int) - own).max() <= 2
    # The run's own model still has its adapters.
    assert np.array_equal(generate(trained, PROMPT, seed=5)[0], own)
    plain = merge_lora(trained.model.backbone.inner)
    assert not any("lora" in each for each in plain.state_dict())
    assert np.abs(generate(trained, PROMPT, seed=5)[0].astype(int) - own).max() <= 2


@pytest.mark.parametrize("name", ["sdxl", "pixart"])
def test_saved_adapters_fill_a_model_again(name: str, tmp_path: Path):
    trained = adapted(name, tmp_path)
    own = generate(trained, PROMPT, seed=5)[0]
    file = save_lora(trained, tmp_path / "lora")
    fresh = trained_family(name, tmp_path / "fresh")
    load_lora(fresh.model, file)
    assert np.array_equal(generate(fresh, PROMPT, seed=5)[0], own)
    other = trained_family(name, tmp_path / "other", lora_rank=3)
    add_lora(other.model, other.settings)
    with pytest.raises(ConfigError, match="have rank 2"):
        load_lora(other.model, file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DatasetError, match="cannot be read as adapters"):
        load_lora(fresh.model, file)


def test_layers_that_are_not_there_are_named(tmp_path: Path):
    trained = trained_family("sd15", tmp_path, lora_rank=2, lora_targets=("query",))
    with pytest.raises(ConfigError, match="No layer of the network ends in query"):
        add_lora(trained.model, trained.settings)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "flux"])
def test_learned_tokens_draw_the_same_picture_by_their_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told = {"new_tokens": {"<thing>": "circle", "<style>": "red"}}
    trained = trained_family(name, tmp_path, **told)
    add_tokens(trained.model, trained.settings)
    names = set(trained.model.trained_parameters())
    assert names
    assert all(each.startswith("text.") for each in names)
    start = generate(trained, ["a picture of <thing>"], seed=5)[0].astype(int)
    stir(trained)
    own = generate(trained, ["a picture of <thing>"], seed=5)[0].astype(int)
    assert np.abs(own - start).max() > 5
    export_run(trained, tmp_path / "run")
    by_card = drawn_by_the_card(tmp_path / "run", 5, monkeypatch)
    assert np.abs(by_card.astype(int) - own).max() <= 2
    fresh = trained_family(name, tmp_path / "fresh", **told)
    add_tokens(fresh.model, fresh.settings)
    load_new_tokens(fresh.model, tmp_path / "run")
    assert np.array_equal(generate(fresh, ["a picture of <thing>"], seed=5)[0], own)


def test_pipelines_that_read_no_embeddings_are_refused(tmp_path: Path):
    trained = trained_family("pixart", tmp_path, new_tokens={"<thing>": "circle"})
    with pytest.raises(ConfigError, match="PixArtSigmaPipeline cannot load embeddings"):
        add_tokens(trained.model, trained.settings)


def test_embeddings_of_other_tokens_are_refused(tmp_path: Path):
    trained = trained_family("sd15", tmp_path, new_tokens={"<thing>": "circle"})
    add_tokens(trained.model, trained.settings)
    save_new_tokens(trained.model, tmp_path)
    other = trained_family("sd15", tmp_path / "other", new_tokens={"<style>": "red"})
    add_tokens(other.model, other.settings)
    with pytest.raises(DatasetError, match="is not of <style>"):
        load_new_tokens(other.model, tmp_path)
    with pytest.raises(DatasetError, match=r"learned_embeds\.safetensors"):
        load_new_tokens(other.model, tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_package_that_is_not_there_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    trained = trained_family("sd15", tmp_path)
    with pytest.raises(ConfigError, match=f"quantise_base {kind} needs the package"):
        quantise(trained.model.backbone, str(trained.config.source), kind)


def test_a_run_of_adapters_starts_from_its_base_and_its_adapters(tmp_path: Path):
    run = tmp_path / "run"
    assert resolve("someone/model") == Start("someone/model")
    trained = adapted("sd15", tmp_path)
    export_run(trained, run)
    (run / "run.json").write_text(
        json.dumps({"settings": trained.settings.model_dump(mode="json")})
    )
    source = str(tmp_path / "source")
    assert resolve(source) == Start(source)
    start = resolve(str(run))
    assert start == Start(source, run / "lora" / "pytorch_lora_weights.safetensors")
    export_pipeline(trained, run / "pipeline")
    assert resolve(str(run)) == Start(str(run / "pipeline"))
    with pytest.raises(ConfigError, match="neither a pipeline's folder nor a run"):
        resolve(str(tmp_path))
