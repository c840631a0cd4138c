"""A run's directory: finished work is kept, other settings are refused, more steps go on."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_json
from curate.base.weights import load_state_dict
from curate.store.dataset import Dataset
from tests.train.data.small_dataset import add_captions, add_scores, make_dataset
from tests.train.tiny_run import small, tiny
from train.assemble import load_trained
from train.data.receipt import check_receipt
from train.run import RunSummary, train
from train.sample import generate
from train.settings import settled

OPTIONS: dict[str, Any] = {"steps": 30, "validate_every": 15}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, train(data, tiny(**OPTIONS), out, "all")


def copied(finished: tuple[Path, RunSummary], tmp_path: Path, *without: str) -> Path:
    shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns(*without))
    return tmp_path / "run"


def test_a_run_leaves_its_whole_record(finished: tuple[Path, RunSummary]) -> None:
    out, summary = finished
    record = read_json(out / "run.json")
    assert record["settings"]["steps"] == 30
    assert set(record["identity"]["data"]) == {"training", "held_out", "vocabulary"}
    assert "torch" in record["versions"]
    assert summary.steps == 30
    assert summary.samples == 35
    assert not check_receipt(out)
    assert sum(summary.blend.values()) == pytest.approx(1)
    assert set(summary.validation) == {"alt", "descriptive", "short", "empty"}
    validation = pq.read_table(out / "validation.parquet").to_pydict()
    assert sorted(set(validation["step"])) == [15, 30]
    assert sorted(set(validation["timestep"])) == [(i + 0.5) / 8 for i in range(8)]
    metrics = pq.read_table(out / "metrics.parquet").to_pydict()
    assert metrics["step"] == list(range(1, 31))
    assert all(share > 0 for share in metrics["mfu"])
    assert summary.teraflops == metrics["teraflops"][-1]
    with Image.open(out / "grids" / "step-000030.png") as grid:
        assert grid.size == (204, 204)
    assert len(read_json(out / "grids" / "prompts.json")) == 4
    assert not list(out.rglob("*.pt")) + list(out.rglob("*.pkl"))


def test_a_blend_that_falls_back_is_looked_at_as_a_blend_where_no_kind_is_whole(
    tmp_path: Path,
) -> None:
    halves = make_dataset(tmp_path / "data", count=40, sizes=((16, 16),))
    keys = halves.selection_keys("all")
    for source, own in (("one", keys[::2]), ("two", keys[1::2])):
        add_captions(halves, source, source, dict.fromkeys(own, f"a plain {source} square"))
    blend = {"captions": {"one": 0.5, "two": 0.5}, "missing_captions": "fallback"}
    summary = train(halves, tiny(**blend, steps=3), tmp_path / "run", "all")
    assert {"blend", "empty", "alt"} <= set(summary.validation)
    assert not {"one", "two"} & set(summary.validation)
    assert summary.fell_back == pytest.approx(0.5, abs=0.2)
    assert set(read_json(tmp_path / "run" / "grids" / "prompts.json")) <= {
        "a plain one square",
        "a plain two square",
    }
    again = train(halves, tiny(**blend, steps=3), tmp_path / "run", "all")
    assert again == summary


def test_a_run_may_hold_nothing_out(data: Dataset, tmp_path: Path) -> None:
    few = tiny(steps=2, validation_share=0.0, grid_size=2, checkpoint_every=2)
    summary = train(data, few, tmp_path / "run", "all")
    assert summary.validation == {}
    assert summary.samples == 40
    assert not check_receipt(tmp_path / "run")


def test_buckets_that_the_network_cannot_cut_are_refused(data: Dataset, tmp_path: Path) -> None:
    cut = tiny(aspect_buckets=True, bucket_step=7)
    with pytest.raises(ConfigError, match="sides are multiples of 8; take a bucket_step that is"):
        train(data, cut, tmp_path / "run", "all")
    assert not (tmp_path / "run").exists()


def test_running_again_returns_the_finished_run(
    data: Dataset, finished: tuple[Path, RunSummary]
) -> None:
    out, summary = finished
    before = (out / "summary.json").stat().st_mtime_ns
    looked = tiny(**OPTIONS, log_every=7, grid_every=2)
    assert train(data, looked, out, "all") == summary
    assert (out / "summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "lost", ["pipeline/transformer", "pipeline/model_index.json", "summary.json"]
)
def test_what_a_finished_run_lost_is_made_again(
    lost: str, data: Dataset, finished: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    copy = copied(finished, tmp_path)
    if lost.startswith("pipeline"):
        shutil.rmtree(copy / "pipeline")
    else:
        (copy / lost).write_bytes((copy / lost).read_bytes()[:-100])
    said: list[str] = []
    again = train(data, tiny(**OPTIONS), copy, "all", say=said.append)
    assert "lost or cut" in said[0]
    assert again.weights == finished[1].weights
    load_trained(copy)


def test_a_finished_run_takes_more_steps_and_none_back(
    data: Dataset, finished: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    copy = copied(finished, tmp_path)
    with pytest.raises(ConfigError, match="has taken 30 steps and cannot be brought back to 20"):
        train(data, tiny(**{**OPTIONS, "steps": 20}), copy, "all")
    longer = tiny(**{**OPTIONS, "steps": 45})
    extended = train(data, longer, copy, "all")
    whole = train(data, longer, tmp_path / "whole", "all")
    assert extended.steps == 45
    assert extended.weights == whole.weights
    assert read_json(copy / "run.json")["settings"]["steps"] == 45
    columns = ["step", "caption_kind", "timestep", "loss"]
    tables = [
        pq.read_table(run / "validation.parquet", columns=columns)
        for run in (copy, tmp_path / "whole")
    ]
    assert tables[0].equals(tables[1])


def test_a_run_without_a_record_is_one_sentence(
    finished: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    copy = copied(finished, tmp_path, "checkpoints")
    (copy / "run.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"lacks a part of its run\.json"):
        load_trained(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.unlink(),
    ],
    ids=["cut", "gone"],
)
def test_weights_that_are_lost_are_refused_in_one_sentence(
    finished: tuple[Path, RunSummary], tmp_path: Path, damage: Any
) -> None:
    copy = copied(finished, tmp_path, "checkpoints")
    damage(copy / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(DatasetError, match="Delete the run's directory and train it again"):
        load_trained(copy)


def test_other_settings_or_data_are_refused_and_nothing_is_overwritten(
    data: Dataset, finished: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    out, _ = finished
    before = (out / "run.json").read_bytes()
    with pytest.raises(DatasetError, match=r"settings\.seed was 0, now 1"):
        train(data, tiny(**OPTIONS, seed=1), out, "all")
    other = make_dataset(tmp_path / "other", count=39, sizes=((16, 16),))
    with pytest.raises(DatasetError, match="data"):
        train(other, tiny(**OPTIONS), out, "all")
    assert (out / "run.json").read_bytes() == before


def test_another_machine_of_the_same_precision_goes_on(
    data: Dataset, finished: tuple[Path, RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, summary = finished
    record = read_json(out / "run.json")
    assert (record["settings"]["device"], record["settings"]["precision"]) == ("cpu", "fp32")
    # On a machine where auto would mean something else:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert train(data, tiny(**OPTIONS, device="cuda", precision="fp32"), out, "all") == summary
    stored = record["identity"]["settings"]
    assert settled(tiny(precision="auto"), {**stored, "precision": "bf16"}).precision == "bf16"


def test_a_directory_of_someone_else_is_refused(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not a training run"):
        train(data, tiny(), tmp_path, "all")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_bad_input_is_refused_before_any_work(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    for settings, selection, sentence in [
        (tiny(captions={"haiku": 1.0}), "all", "haiku"),
        (tiny(), None, "Say which selection to train on"),
        (tiny(trackers=["wandb"]), "all", "needs the package wandb"),
        (tiny(init_from=str(tmp_path / "nowhere")), "all", "nowhere"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            train(data, settings, out, selection)
    assert not out.exists()


def test_tensorboard_gets_the_metrics(data: Dataset, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(data, tiny(steps=4, trackers=["tensorboard"], grid_size=0), tmp_path / "run", "all")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    rows = pq.read_table(tmp_path / "run" / "metrics.parquet").to_pylist()
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    assert {"mfu", "images_per_second"} <= set(events.Tags()["scalars"])


def test_a_run_is_fine_tuned_from_another(
    data: Dataset, finished: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    settings = tiny(steps=2, init_from=str(finished[0]), grid_size=0)
    tuned = train(data, settings, tmp_path / "run", "all")
    first = pq.read_table(tmp_path / "run" / "metrics.parquet").column("loss")[0].as_py()
    begun = pq.read_table(finished[0] / "metrics.parquet").column("loss")[0].as_py()
    assert first < 0.7 * begun
    assert tuned.steps == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["model_config"]


ADAPTED: dict[str, dict[str, Any]] = {
    "lora": {"lora_rank": 2, "adamw_learning_rate": 0.1},
    "merged": {"lora_rank": 2, "adamw_learning_rate": 0.1, "merge_lora": True},
    "conditions": {"condition_on": ["sharpness"], "condition_buckets": 3},
}


@pytest.mark.parametrize("what", ADAPTED)
def test_adapters_and_conditions_are_killed_resumed_and_loaded(
    what: str, data: Dataset, finished: tuple[Path, RunSummary], tmp_path: Path
) -> None:
    if what == "conditions":
        data = small(tmp_path / "data")
        add_scores(
            data, sharpness={key: float(n) for n, key in enumerate(data.selection_keys("all"))}
        )
    settings = tiny(
        steps=6, checkpoint_every=2, init_from=str(finished[0]), grid_size=2, **ADAPTED[what]
    )
    whole = train(data, settings, tmp_path / "whole", "all")

    def end(done: int, total: int, pace: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, settings, tmp_path / "killed", "all", on_step=end)
    train(data, settings, tmp_path / "killed", "all")
    for name in whole.weights:
        files = [load_state_dict(tmp_path / run / name) for run in ("whole", "killed")]
        assert all(torch.equal(files[0][key], files[1][key]) for key in files[0] | files[1])
    assert (whole.parameters < finished[1].parameters / 3) == (what != "conditions")
    asked = {"sharpness": 0.9} if what == "conditions" else {}
    loaded = [load_trained(tmp_path / name) for name in ("whole", "killed")]
    drawn = [generate(one, ["a red square"], seed=1, conditions=asked) for one in loaded]
    np.testing.assert_array_equal(*drawn)
    assert (drawn[0] != generate(finished[0], ["a red square"], seed=1)).any()
    assert (tmp_path / "whole" / "pipeline").exists() == (what in ("merged", "conditions"))


def test_a_finished_run_draws_pictures(finished: tuple[Path, RunSummary]) -> None:
    pictures = generate(finished[0], ["a plain red square", ""], seed=5)
    assert pictures.shape == (2, 16, 16, 3)
    assert pictures.dtype == np.uint8
