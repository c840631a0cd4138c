"""The loop: exact resume, shared randomness, more steps later, steps that are not finite."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from curate.base.errors import CaplabError
from curate.base.weights import load_state_dict
from curate.store.dataset import Dataset
from tests.train.tiny_run import CAPTIONS, loop, small, tiny
from train import loop as the_loop
from train.assemble import build_model
from train.checkpoints import Checkpoints
from train.data import kept_texts
from train.data.loader import open_data
from train.distributed import ALONE
from train.loop import step_noise
from train.model import TextToImage, Trained
from train.objectives import build_objective
from train.optimizer import before_cooldown
from train.presets import preset_names
from train.settings import TrainSettings, model_config
from train.text.t5 import T5Text
from train.validation import Validation

SHAPE, CPU = torch.Size((3, 16, 16)), torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small(tmp_path_factory.mktemp("data"))


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: p.clone() for name, p in trained.model.named_parameters()}


def checkpoints(out: Path) -> list[str]:
    return [path.stem for path in Checkpoints(out, "", tiny(), ALONE, print).paths()]


def same(first: Trained, second: Trained) -> None:
    theirs = weights(second)
    for name, weight in weights(first).items():
        assert torch.equal(weight, theirs[name]), name


def rows(out: Path, *columns: str) -> dict[str, list[Any]]:
    return pq.read_table(out / "metrics.parquet", columns=list(columns)).to_pydict()


@pytest.mark.parametrize("accumulated", [1, 2])
def test_an_interrupted_run_ends_bit_for_bit_as_an_unbroken_one(
    data: Dataset, tmp_path: Path, accumulated: int
) -> None:
    options = {"steps": 12, "checkpoint_every": 5, "log_every": 3, "grid_size": 0}
    options["gradient_accumulation_steps"] = accumulated
    whole, _ = loop(data, tmp_path / "whole", **options)
    loop(data, tmp_path / "broken", stop_after=7, **options)  # amid an epoch and a row
    resumed, _ = loop(data, tmp_path / "broken", **options)
    same(whole, resumed)
    tables = [rows(tmp_path / which, "step", "loss") for which in ("whole", "broken")]
    assert tables[0] == tables[1]
    assert tables[0]["step"] == [3, 6, 9, 12]


def test_a_finished_run_that_is_given_more_steps_ends_as_an_unbroken_longer_one(
    data: Dataset, tmp_path: Path
) -> None:
    options = {"cooldown_share": 0.5, "checkpoint_every": 3, "grid_size": 0}
    assert before_cooldown(tiny(steps=10, cooldown_share=0.5)) == 6
    loop(data, tmp_path / "extended", steps=10, **options)
    assert checkpoints(tmp_path / "extended") == ["00000006", "00000009", "00000010"]
    extended, _ = loop(data, tmp_path / "extended", steps=16, **options)
    whole, _ = loop(data, tmp_path / "whole", steps=16, **options)
    same(extended, whole)
    tables = [rows(tmp_path / which, "step", "loss") for which in ("extended", "whole")]
    assert tables[0] == tables[1]
    assert checkpoints(tmp_path / "extended") == checkpoints(tmp_path / "whole")


def test_looking_more_often_changes_no_weight_and_refuses_no_checkpoint(
    data: Dataset, tmp_path: Path
) -> None:
    whole, _ = loop(data, tmp_path / "seldom", steps=8)
    loop(data, tmp_path / "often", steps=8, stop_after=4)
    said: list[str] = []
    looking = {"validate_every": 1, "grid_every": 2, "grid_prompts": ("green",), "log_every": 2}
    often, state = loop(data, tmp_path / "often", steps=8, say=said.append, **looking)
    assert not said
    assert [row["step"] for row in state.metrics] == [1, 2, 3, 4, 6, 8]
    same(whole, often)


def test_only_the_newest_checkpoints_stay(data: Dataset, tmp_path: Path) -> None:
    loop(data, tmp_path, steps=8, checkpoint_every=2, grid_size=0, cooldown_share=0)
    assert checkpoints(tmp_path) == ["00000006", "00000008"]


def test_two_arms_of_a_seed_see_the_same_noise_and_start() -> None:
    descriptive, short = tiny(), tiny(captions={"short": 1.0})
    objective = build_objective(descriptive)
    for step in (0, 5):
        ours, theirs = (step_noise(s, objective, step, SHAPE, CPU) for s in (descriptive, short))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    small, large = (build_model(model_config(tiny()), tiny(), texts) for texts in (["a"], ["a b"]))
    for (name, ours), theirs in zip(small.named_parameters(), large.parameters(), strict=True):
        assert ours.shape != theirs.shape or torch.equal(ours, theirs), name
    noise = step_noise(descriptive, objective, 0, SHAPE, CPU)[0]
    assert not torch.equal(noise, step_noise(tiny(seed=1), objective, 0, SHAPE, CPU)[0])


@pytest.mark.parametrize("stream", ["weights", "data", "noise"])
def test_a_seed_of_its_own_changes_one_stream_and_no_bit_of_the_others(
    data: Dataset, stream: str
) -> None:
    def streams(settings: TrainSettings) -> dict[str, list[Any]]:
        config = model_config(settings)
        model = build_model(config, settings, CAPTIONS)
        batch = open_data(data, settings, config, model.text, "all").batch(1, 0, 8)
        noise = step_noise(settings, build_objective(settings), 1, SHAPE, CPU)
        return {
            "weights": [p.tolist() for p in model.parameters()],
            "data": [batch.rows.tolist(), batch.drawn.texts, batch.x.tolist()],
            "noise": [own.tolist() for own in noise],
        }

    def with_flips(**seeds: int) -> TrainSettings:
        return tiny(flip=True, prompt_dropout_prob=0.5, **seeds)

    one, other = streams(with_flips()), streams(with_flips(seed=1))
    assert all(one[name] != other[name] for name in one)
    mixed = streams(with_flips(**{f"{stream}_seed": 1}))
    assert mixed == {**one, stream: other[stream]}
    assert streams(with_flips(seed=1, **{f"{stream}_seed": 0})) == {**other, stream: one[stream]}


def test_parts_of_a_step_are_the_step(data: Dataset, tmp_path: Path) -> None:
    options = {"steps": 4, "batch_size": 8, "grid_size": 0}
    at_once, first = loop(data, tmp_path / "1", **options)
    in_parts, second = loop(data, tmp_path / "4", gradient_accumulation_steps=4, **options)
    for ours, theirs in zip(first.metrics, second.metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    for name, weight in weights(at_once).items():
        torch.testing.assert_close(weights(in_parts)[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("how", [{"activation_checkpointing": True}, {"loader_workers": 1}])
def test_how_a_run_works_changes_no_loss(
    data: Dataset, tmp_path: Path, how: dict[str, Any]
) -> None:
    _, plain = loop(data, tmp_path / "plain", steps=4, grid_size=2)
    _, other = loop(data, tmp_path / "other", steps=4, grid_size=2, **how)
    for ours, theirs in zip(plain.metrics, other.metrics, strict=True):
        assert ours["loss"] == theirs["loss"]


def test_texts_are_padded_to_the_longest_of_the_batch_and_losses_stay(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = TextToImage.forward

    def looking(self: TextToImage, x: Any, time: Any, text: Any, *rest: Any) -> Any:
        seen.append(text["text_encoder.ids"].shape[1])
        return forward(self, x, time, text, *rest)

    options = {"steps": 4, "grid_size": 0, "validation_samples": 0}
    monkeypatch.setattr(TextToImage, "forward", looking)
    _, cut = loop(data, tmp_path / "cut", **options)
    assert max(seen) < 12
    monkeypatch.setattr(TextToImage, "without_padding", lambda self, text: text)
    _, padded = loop(data, tmp_path / "padded", **options)
    assert set(seen[len(seen) // 2 :]) == {12}
    for ours, theirs in zip(cut.metrics, padded.metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_a_frozen_encoder_reads_every_caption_once_and_losses_stay(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"width": 32, "depth": 1, "heads": 2, "feed_forward": 32, "vocabulary_size": 512}
    frozen = {"kind": "words", "masked": True, "tokens": 12, "options": words}
    preset = tmp_path / "frozen.yaml"
    preset.write_text(yaml.safe_dump({"base": "tiny-test", "model": {"text": [frozen]}}))
    options = {"model": str(preset), "steps": 6, "grid_size": 0, "validation_samples": 0}
    read: list[int] = []
    forward = T5Text.forward

    def counting(self: T5Text, tokens: Any) -> Any:
        read.append(len(tokens["text_encoder.ids"]))
        return forward(self, tokens)

    monkeypatch.setattr(T5Text, "forward", counting)
    kept, once = loop(data, tmp_path / "once", **options)
    assert sum(read) < 6 * 8
    loop(data, tmp_path / "killed", stop_after=3, **options)
    same(loop(data, tmp_path / "killed", **options)[0], kept)
    monkeypatch.setattr(kept_texts, "MOST_NUMBERS", 12 * 32)
    read.clear()
    _, every = loop(data, tmp_path / "every", **options)
    assert read == [8] * 6
    for ours, theirs in zip(once.metrics, every.metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_parts_of_a_step_are_added_up_in_float32(data: Dataset, tmp_path: Path) -> None:
    options = {"steps": 4, "grid_size": 0, "precision": "bf16"}
    _, whole = loop(data, tmp_path / "1", **options)
    _, parted = loop(data, tmp_path / "8", gradient_accumulation_steps=8, **options)
    for ours, theirs in zip(whole.metrics, parted.metrics, strict=True):
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=4e-3)


def test_a_loss_weight_of_zero_takes_a_picture_out(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.data.loader import TrainingData

    whole = TrainingData.batch

    def weightless(self: TrainingData, *place: int) -> Any:
        batch = whole(self, *place)
        batch.loss_weight.zero_()
        return batch

    monkeypatch.setattr(TrainingData, "batch", weightless)
    _, state = loop(data, tmp_path, steps=2, grid_size=0)
    assert [row["loss"] for row in state.metrics] == [0, 0]
    assert [row["gradient_norm"] for row in state.metrics] == [0, 0]


def test_steps_that_are_not_finite_are_counted_and_end_the_run(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise_with_a_hole(settings: Any, objective: Any, step: int, *place: Any) -> Any:
        noise, t = step_noise(settings, objective, step, *place)
        return (noise * torch.nan if step in (2, 4) else noise), t

    monkeypatch.setattr(the_loop, "step_noise", noise_with_a_hole)
    trained, state = loop(data, tmp_path / "two", steps=6)
    assert state.skipped == 2
    assert all(torch.isfinite(weight).all() for weight in weights(trained).values())
    with pytest.raises(CaplabError, match="2 training steps were not finite, the last at or befo"):
        loop(data, tmp_path / "one", steps=6, max_skipped_steps=1)


def test_weights_that_are_not_finite_are_never_kept(data: Dataset, tmp_path: Path) -> None:
    """One absurd step ruins them; the steps after it are skipped, too few to give the run up."""
    rates = {"adamw_learning_rate": 1e38, "muon_learning_rate": 0.0}
    with pytest.raises(CaplabError, match="weights are not finite after step 3; lower the learni"):
        loop(data, tmp_path, steps=6, checkpoint_every=3, **rates)
    assert checkpoints(tmp_path) == []


def test_training_lowers_the_loss(data: Dataset, tmp_path: Path) -> None:
    _, state = loop(data, tmp_path, steps=60, log_every=20, grid_size=0)
    losses = [row["loss"] for row in state.metrics]
    assert losses[-1] < 0.5 * losses[0]


def test_a_bf16_run_publishes_its_averages_unrounded(data: Dataset, tmp_path: Path) -> None:
    trained, state = loop(data, tmp_path, steps=4, precision="bf16")
    assert np.isfinite(state.metrics[-1]["loss"])
    checkpoint = load_state_dict(tmp_path / "checkpoints" / "00000004.safetensors")
    published = weights(trained)
    assert any(not torch.equal(w, w.bfloat16().float()) for w in published.values())
    for name, weight in published.items():
        assert weight.dtype == checkpoint[f"ema/{name}"].dtype == torch.float32
        assert torch.equal(weight, checkpoint[f"ema/{name}"]), name
    # Tensors that are computed and not learnt are not rounded either.
    fresh = build_model(model_config(tiny()), tiny(), CAPTIONS)
    for name, buffer in trained.model.named_buffers():
        assert torch.equal(buffer, fresh.get_buffer(name)), name


def test_a_checkpoint_is_due_by_time_as_well(data: Dataset, tmp_path: Path) -> None:
    loop(data, tmp_path, stop_after=3, checkpoint_minutes=1e-9)
    assert checkpoints(tmp_path) == ["00000002", "00000003"]
    loop(data, tmp_path / "off", stop_after=3, checkpoint_minutes=0)
    assert checkpoints(tmp_path / "off") == ["00000003"]
    assert all(tiny(model=name).checkpoint_minutes == 5 for name in preset_names())


BROKEN = {"steps": 4, "checkpoint_every": 1, "grid_size": 0}


def of_other_settings(data: Dataset, path: Path) -> None:
    loop(data, path.parents[1] / "other", stop_after=3, seed=1, **BROKEN)
    path.write_bytes((path.parents[1] / "other/checkpoints/00000003.safetensors").read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, path: path.write_bytes(path.read_bytes()[:-100]),
        lambda data, path: path.write_bytes(b""),
        lambda data, path: path.write_bytes(b"no tensors here" * 100),
        lambda data, path: save_file({"a": torch.zeros(1)}, path),
        of_other_settings,
    ],
    ids=["cut", "empty", "garbage", "another file", "other settings"],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    data: Dataset, tmp_path: Path, damage: Any, unbroken: Trained
) -> None:
    loop(data, tmp_path, stop_after=3, **BROKEN)
    damage(data, tmp_path / "checkpoints" / "00000003.safetensors")
    said: list[str] = []
    resumed, _ = loop(data, tmp_path, say=said.append, **BROKEN)
    assert len(said) == 1
    assert "00000003.safetensors is not used" in said[0]
    assert "goes on from step 2" in said[0]
    same(unbroken, resumed)
    # What is set aside does not count among the checkpoints that are kept.
    assert checkpoints(tmp_path) == ["00000003", "00000004"]


@pytest.fixture(scope="module")
def unbroken(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with the options BROKEN."""
    return loop(data, tmp_path_factory.mktemp("unbroken"), **BROKEN)[0]


def test_a_run_without_a_usable_checkpoint_starts_anew_and_says_so(
    data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"0000000{step}.safetensors").write_bytes(b"")
    said: list[str] = []
    _, state = loop(data, tmp_path, say=said.append, stop_after=1, **BROKEN)
    assert ["from step 1" in said[0], "from the start" in said[1]] == [True, True]
    assert state.step == 1


@pytest.mark.parametrize("step", [3, 6])
def test_a_run_that_is_told_to_end_says_from_where_it_goes_on(
    data: Dataset, tmp_path: Path, step: int
) -> None:
    def end(done: int, total: int, pace: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        loop(data, tmp_path, say=said.append, on_step=end, steps=20, checkpoint_every=5)
    told = "no checkpoint was written yet" if step == 3 else "goes on from step 5"
    assert len(said) == 1
    assert f"ended after step {step}" in said[0]
    assert told in said[0]


def test_a_run_that_is_stopped_in_its_last_grid_has_lost_no_step(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Validation) -> Any:
        raise KeyboardInterrupt

    said: list[str] = []
    whole, _ = loop(data, tmp_path / "whole", steps=4)
    with monkeypatch.context() as patched:
        patched.setattr(Validation, "grid", stopped)
        with pytest.raises(KeyboardInterrupt):
            loop(data, tmp_path / "stopped", say=said.append, steps=4)
    assert "ended after step 4; the same command goes on from step 4" in said[0]
    again, _ = loop(data, tmp_path / "stopped", steps=4)
    same(again, whole)
    grids = [tmp_path / name / "grids" / "step-000004.png" for name in ("whole", "stopped")]
    assert grids[0].read_bytes() == grids[1].read_bytes()
    assert rows(tmp_path / "stopped", "step", "loss") == rows(tmp_path / "whole", "step", "loss")
