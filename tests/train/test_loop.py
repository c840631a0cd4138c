"""The loop: exact resume, shared randomness, steps that are not finite."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curate.errors import CaplabError
from tests.train.tiny_run import squares, tiny
from train import loop
from train.loop import step_noise, train_loop
from train.model import build_model
from train.optimizer import Optimizer, learning_rate_scale, orthogonalised
from train.settings import model_config
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


def test_held_out_samples_hang_on_their_keys_alone() -> None:
    keys = [f"k{i}" for i in range(50)]
    chosen = {key for key, out in zip(keys, held_out(keys, 10), strict=True) if out}
    turned = keys[::-1]
    assert chosen == {key for key, out in zip(turned, held_out(turned, 10), strict=True) if out}


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


def test_bf16_weights_follow_fp32_master_weights(tmp_path: Path) -> None:
    result = run(tmp_path, steps=4, precision="bf16")
    assert result.trained.dtype == torch.bfloat16
    assert np.isfinite(result.progress.metrics[-1]["loss"])
    with loop.checkpoints(tmp_path)[-1].open("rb") as checkpoint:
        assert b"BF16" not in checkpoint.read(20_000)


def test_newton_schulz_brings_singular_values_near_one() -> None:
    matrices = torch.randn((2, 24, 60), generator=torch.Generator().manual_seed(0))
    for stack in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalised(stack))
        assert 0.6 < values.min() < values.max() < 1.3


def test_adamw_is_torchs_adamw() -> None:
    settings = tiny(muon_learning_rate=0.0, weight_decay=0.1, gradient_clip=1e9)
    model, reference = build_model(CONFIG, 10, 0), build_model(CONFIG, 10, 0)
    optimizer = Optimizer(model, settings)
    matrices = [p for p in reference.parameters() if p.ndim == 2]
    others = [p for p in reference.parameters() if p.ndim != 2]
    theirs = torch.optim.AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
        lr=settings.adamw_learning_rate,
        betas=settings.adamw_betas,
        weight_decay=0.1,
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        for own, other in zip(model.parameters(), reference.parameters(), strict=True):
            own.grad = torch.randn(own.shape, generator=generator)
            other.grad = own.grad.clone()
        optimizer.step(step, 1.0)
        theirs.step()
    for own, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_warms_up_stays_and_cools_down() -> None:
    settings = tiny(steps=100, warmup_share=0.1, cooldown_share=0.5)
    scales = [learning_rate_scale(step, settings) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:51] == [1.0] * 42
    assert scales[75] == pytest.approx(0.5)
    assert scales[99] == pytest.approx(0.02)
