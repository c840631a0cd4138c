"""The loop: exact resume, shared randomness, steps that are not finite."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from curate.base.errors import CaplabError, ConfigError
from curate.base.weights import load_state_dict
from tests.train.tiny_run import squares, tiny
from train import loop
from train.loop import step_noise, train_loop
from train.model import build_model
from train.optimizer import Optimizer, learning_rate_scale
from train.settings import model_config, preset_names
from train.shards import DataOrder, held_out
from train.tokenizer import build_tokenizer

CONFIG = model_config(tiny())
TOKENIZER = build_tokenizer(CONFIG, ["a plain red green blue square", "everything is"])


def run(out: Path, stop_after: int | None = None, **changes):
    return train_loop(squares(), tiny(**changes), CONFIG, TOKENIZER, out, stop_after)


def weights(result) -> dict[str, torch.Tensor]:
    return {name: p.clone() for name, p in result.trained.model.named_parameters()}


def test_an_interrupted_run_ends_bit_for_bit_as_an_unbroken_one(tmp_path: Path) -> None:
    options = {"steps": 12, "checkpoint_every": 5, "log_every": 3}
    whole = run(tmp_path / "whole", **options)
    run(tmp_path / "broken", stop_after=7, **options)  # in the middle of an epoch and of a row
    resumed = run(tmp_path / "broken", **options)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name
    tables = [
        pq.read_table(tmp_path / which / "metrics.parquet", columns=["step", "loss"]).to_pydict()
        for which in ("whole", "broken")
    ]
    assert tables[0] == tables[1]
    assert tables[0]["step"] == [3, 6, 9, 12]


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run(tmp_path, steps=8, checkpoint_every=2)
    names = [path.name for path in loop.checkpoints(tmp_path)]
    assert names == ["00000006.safetensors", "00000008.safetensors"]


def test_two_arms_of_a_seed_see_the_same_noise_and_order_and_start() -> None:
    descriptive, short = tiny(), tiny(captions={"short": 1.0})
    for step in (0, 5):
        for ours, theirs in zip(
            step_noise(descriptive, step, 16), step_noise(short, step, 16), strict=True
        ):
            assert torch.equal(ours, theirs)
    small, large = build_model(CONFIG, 10, 3), build_model(CONFIG, 20, 3)
    for (name, ours), theirs in zip(small.named_parameters(), large.parameters(), strict=True):
        assert ours.shape != theirs.shape or torch.equal(ours, theirs), name
    assert not torch.equal(step_noise(descriptive, 0, 16)[0], step_noise(tiny(seed=1), 0, 16)[0])


def test_an_epoch_shows_every_sample_once() -> None:
    order = DataOrder(samples=10, batch_size=4, seed=0)
    rows = np.concatenate([order.batch(step)[0] for step in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert list(rows[:10]) != list(rows[10:])
    fresh = DataOrder(samples=10, batch_size=4, seed=0)
    np.testing.assert_array_equal(fresh.batch(3)[0], order.batch(3)[0])


def test_a_selection_that_grows_moves_no_held_out_sample_into_training() -> None:
    grown = [f"k{i}" for i in range(4000)]
    small = grown[::-1][:500]
    apart, grown_apart = (
        {key for key, out in zip(keys, held_out(keys, 0.1, 8)[0], strict=True) if out}
        for keys in (small, grown)
    )
    assert apart == grown_apart & set(small)
    assert len(grown_apart) / 4000 == pytest.approx(0.1, abs=0.02)


def test_at_most_so_many_held_out_samples_are_looked_at() -> None:
    keys = [f"k{i}" for i in range(100)]
    apart, shown = held_out(keys, 0.2, 8)
    assert apart[shown].all()
    assert len(set(shown)) == 8
    assert not held_out(keys, 0.2, 0)[0].any()
    with pytest.raises(ConfigError, match="none falls under validation_share"):
        held_out(keys, 0.001, 8)


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    model = build_model(CONFIG, 10, 0)
    optimizer = Optimizer(model, tiny())
    before = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    assert not np.isfinite(optimizer.step(0, 1.0))
    for name, tensor in optimizer.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_steps_that_are_not_finite_are_counted_and_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise_with_a_hole(settings, step, resolution):
        noise, t = step_noise(settings, step, resolution)
        return (noise * torch.nan if step in (2, 4) else noise), t

    monkeypatch.setattr(loop, "step_noise", noise_with_a_hole)
    result = run(tmp_path / "two", steps=6)
    assert result.progress.skipped == 2
    assert all(torch.isfinite(weight).all() for weight in weights(result).values())
    with pytest.raises(CaplabError, match="2 training steps were not finite, the last at step 4"):
        run(tmp_path / "one", steps=6, max_skipped_steps=1)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    result = run(tmp_path, steps=60, log_every=20, grid_size=0)
    losses = [row["loss"] for row in result.progress.metrics]
    assert losses[-1] < 0.5 * losses[0]


def test_a_bf16_run_publishes_its_averages_unrounded(tmp_path: Path) -> None:
    result = run(tmp_path, steps=4, precision="bf16")
    assert np.isfinite(result.progress.metrics[-1]["loss"])
    checkpoint = load_state_dict(loop.checkpoints(tmp_path)[-1])
    assert {tensor.dtype for tensor in checkpoint.values()} == {torch.float32}
    published = weights(result)
    assert any(not torch.equal(w, w.bfloat16().float()) for w in published.values())
    for name, weight in published.items():
        assert torch.equal(weight, checkpoint[f"ema/{name}"]), name
    # Tensors that are computed and not learnt are not rounded either.
    fresh = build_model(CONFIG, len(TOKENIZER), 0)
    for name, buffer in result.trained.model.named_buffers():
        assert torch.equal(buffer, fresh.get_buffer(name)), name


def test_a_checkpoint_is_due_by_time_as_well(tmp_path: Path) -> None:
    run(tmp_path, stop_after=3, checkpoint_minutes=1e-9)
    assert [path.stem for path in loop.checkpoints(tmp_path)] == ["00000002", "00000003"]
    run(tmp_path / "off", stop_after=3, checkpoint_minutes=0)
    assert [path.stem for path in loop.checkpoints(tmp_path / "off")] == ["00000003"]
    assert all(tiny(model=name).checkpoint_minutes == 5 for name in preset_names())


def of_other_settings(path: Path) -> None:
    run(path.parents[1] / "other", stop_after=3, seed=1, **BROKEN)
    path.write_bytes((path.parents[1] / "other/checkpoints/00000003.safetensors").read_bytes())


BROKEN = {"steps": 4, "checkpoint_every": 1, "grid_size": 0}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no tensors here" * 100),
        lambda path: save_file({"a": torch.zeros(1)}, path),
        of_other_settings,
    ],
    ids=["cut", "empty", "garbage", "another file", "other settings"],
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    tmp_path: Path, damage, unbroken
) -> None:
    run(tmp_path, stop_after=3, **BROKEN)
    damage(tmp_path / "checkpoints" / "00000003.safetensors")
    said: list[str] = []
    resumed = train_loop(squares(), tiny(**BROKEN), CONFIG, TOKENIZER, tmp_path, say=said.append)
    assert len(said) == 1
    assert "00000003.safetensors is not used" in said[0]
    assert "goes on from step 2" in said[0]
    for name, weight in unbroken.items():
        assert torch.equal(weight, weights(resumed)[name]), name
    # What is set aside does not count among the checkpoints that are kept.
    assert [path.stem for path in loop.checkpoints(tmp_path)] == ["00000003", "00000004"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run with the options BROKEN."""
    return weights(run(tmp_path_factory.mktemp("unbroken"), **BROKEN))


def test_a_run_without_a_usable_checkpoint_starts_anew_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"0000000{step}.safetensors").write_bytes(b"")
    said: list[str] = []
    done = train_loop(
        squares(), tiny(**BROKEN), CONFIG, TOKENIZER, tmp_path, stop_after=1, say=said.append
    )
    assert ["from step 1" in said[0], "from the start" in said[1]] == [True, True]
    assert done.progress.step == 1


def test_the_learning_rate_warms_up_stays_and_cools_down() -> None:
    settings = tiny(steps=100, warmup_share=0.1, cooldown_share=0.5)
    scales = [learning_rate_scale(step, settings) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:51] == [1.0] * 42
    assert scales[75] == pytest.approx(0.5)
    assert scales[99] == pytest.approx(0.02)
