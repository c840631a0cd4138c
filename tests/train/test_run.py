"""A run's directory: finished work is kept, other settings are refused, the export reloads."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_json
from curate.base.weights import load_state_dict
from tests.train.tiny_run import squares, tiny
from train.run import RunSummary, train
from train.sample import generate, initial_noise, load_trained
from train.settings import settled
from train.shards import TrainingSamples


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, train(squares(), tiny(steps=30, validate_every=15), out)


def test_a_run_leaves_its_whole_record(finished) -> None:
    out, summary = finished
    record = read_json(out / "run.json")
    assert record["identity"]["settings"]["steps"] == 30
    assert set(record["identity"]["data"]) >= {"keys", "images", "captions/descriptive"}
    assert "torch" in record["versions"]
    assert summary.steps == 30
    assert summary.samples == 34
    assert sum(summary.blend.values()) == pytest.approx(1)
    assert set(summary.validation) == {"alt", "descriptive", "short", "empty"}
    validation = pq.read_table(out / "validation.parquet").to_pydict()
    assert sorted(set(validation["step"])) == [15, 30]
    assert sorted(set(validation["timestep"])) == [(i + 0.5) / 8 for i in range(8)]
    with Image.open(out / "grids" / "step-000030.png") as grid:
        assert grid.size == (204, 204)
    assert not list(out.rglob("*.pt")) + list(out.rglob("*.pkl")) + list(out.rglob("*.bin"))


def test_running_again_returns_the_finished_run(finished) -> None:
    out, summary = finished
    before = (out / "ema.safetensors").stat().st_mtime_ns
    assert train(squares(), tiny(steps=30, validate_every=15), out) == summary
    assert (out / "ema.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("lost", ["ema.safetensors", "pipeline/model_index.json", "summary.json"])
def test_what_a_finished_run_lost_is_made_again(lost: str, finished, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    if lost.startswith("pipeline"):
        shutil.rmtree(copy / "pipeline")
    else:
        (copy / lost).write_bytes((copy / lost).read_bytes()[:-100])
    said: list[str] = []
    again = train(squares(), tiny(steps=30, validate_every=15), copy, say=said.append)
    assert "made again" in said[0]
    assert again.weights == finished[1].weights
    assert (copy / lost).stat().st_size == (finished[0] / lost).stat().st_size or "summary" in lost
    load_trained(copy)


@pytest.mark.parametrize("lost", ["run.json", "tokenizer/tokenizer.json"])
def test_a_run_without_a_record_or_tokenizer_is_one_sentence(
    lost: str, finished, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy, ignore=shutil.ignore_patterns("checkpoints", "pipeline"))
    (copy / lost).write_text("{}")
    with pytest.raises(DatasetError, match=r"lacks a part of its run\.json or tokenizer/"):
        load_trained(copy)
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(DatasetError, match="lacks a part of"):
        load_trained(copy)


def test_other_settings_or_data_are_refused_and_nothing_is_overwritten(finished) -> None:
    out, _ = finished
    before = (out / "run.json").read_bytes()
    with pytest.raises(DatasetError, match="steps"):
        train(squares(), tiny(steps=31, validate_every=15), out)
    with pytest.raises(DatasetError, match="data"):
        train(squares(39), tiny(steps=30, validate_every=15), out)
    assert (out / "run.json").read_bytes() == before


def test_what_auto_meant_is_stored_and_a_rerun_keeps_it(
    finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, summary = finished
    stored = read_json(out / "run.json")["identity"]["settings"]
    assert (stored["device"], stored["precision"]) == ("cpu", "fp32")
    assert (summary.device, summary.precision) == ("cpu", "fp32")
    # On a machine where auto would mean something else:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    same = tiny(steps=30, validate_every=15)
    assert train(squares(), same, out) == summary
    with pytest.raises(DatasetError, match=r"settings\.device was 'cpu', now 'cuda'"):
        train(squares(), same.model_copy(update={"device": "cuda"}), out)


def test_a_run_of_a_gpu_is_not_continued_without_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be continued here: device = 'cuda:1'"):
        settled(tiny(), {"device": "cuda:1", "precision": "bf16"})
    assert (
        settled(tiny(precision="auto"), {"device": "cpu", "precision": "bf16"}).precision == "bf16"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda own: own.popitem(), "is missing"),
        (lambda own: own.update(more=torch.zeros(1)), "more is unexpected"),
        (lambda own: own.update({"transformer.proj_out.bias": torch.zeros(1)}), r"is \(1,\) and"),
    ],
)
def test_weights_that_are_not_the_model_s_are_refused(
    finished, tmp_path: Path, change, sentence: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy, ignore=shutil.ignore_patterns("checkpoints", "pipeline"))
    own = load_state_dict(copy / "ema.safetensors")
    change(own)
    save_file(own, copy / "ema.safetensors")
    with pytest.raises(DatasetError, match=sentence):
        load_trained(copy)


def test_weights_that_were_cut_are_refused_in_one_sentence(finished, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy, ignore=shutil.ignore_patterns("checkpoints", "pipeline"))
    (copy / "ema.safetensors").write_bytes((copy / "ema.safetensors").read_bytes()[:-100])
    with pytest.raises(DatasetError, match="not a valid safetensors file"):
        load_trained(copy)


def test_a_directory_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not a training run"):
        train(squares(), tiny(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_bad_input_is_refused_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="no haiku captions"):
        train(squares(), tiny(captions={"haiku": 1.0}), out)
    with pytest.raises(ConfigError, match="32 pixels a side and the model 16"):
        train(squares(resolution=32), tiny(), out)
    assert not out.exists()


def test_samples_without_a_caption_are_refused_or_left_out(tmp_path: Path) -> None:
    whole = squares()
    captions = {**whole.captions, "descriptive": [[]] * 3 + whole.captions["descriptive"][3:]}
    gaps = TrainingSamples(whole.keys, whole.images, captions)
    with pytest.raises(ConfigError, match="have no descriptive caption"):
        train(gaps, tiny(grid_size=0), tmp_path / "refused")
    summary = train(gaps, tiny(grid_size=0, missing_captions="drop"), tmp_path / "dropped")
    assert (summary.dropped_samples, summary.samples) == (3, 32)


def test_a_picture_hangs_on_its_seed_and_place_not_on_the_batch(finished) -> None:
    out, _ = finished
    prompts = ["a plain red square", "everything is blue", "", "green"]
    one = generate(out, prompts, seed=5, batch_size=1)
    all_at_once = generate(out, prompts, seed=5, batch_size=4)
    assert one.shape == (4, 16, 16, 3)
    assert np.abs(one.astype(int) - all_at_once).max() <= 1
    shifted = generate(out, prompts[1:], seed=6)
    assert np.abs(shifted.astype(int) - all_at_once[1:]).max() <= 1


@pytest.mark.parametrize("prediction", ["x0", "velocity"])
def test_diffusers_loads_the_export_and_draws_the_same_picture(
    tmp_path: Path, prediction: str
) -> None:
    from diffusers import DiffusionPipeline

    settings = tiny(steps=10, prediction=prediction, loss_weighting=prediction)
    train(squares(), settings, tmp_path / "run")
    trained = load_trained(tmp_path / "run")
    prompt = "A plain red square"
    ours = generate(trained, [prompt], seed=3)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt,
        latents=initial_noise(3, 16)[None],
        num_inference_steps=trained.settings.sampling_steps,
        guidance_scale=trained.settings.guidance_scale,
        height=8 * 16,
        width=8 * 16,
        use_resolution_binning=False,
    ).images[0]
    # The scheduler rounds timesteps to whole thousandths; nothing else differs.
    assert np.abs(np.asarray(drawn)[::8, ::8].astype(int) - ours[0]).max() <= 3


def test_an_unfinished_run_cannot_be_sampled(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no finished training run"):
        load_trained(tmp_path)
