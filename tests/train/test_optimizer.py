"""A step is torch's AdamW and Muon's, clipped and averaged, and nothing where it is not finite."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.train import spread_optimizer
from train.optimizer import Optimizer, before_cooldown, learning_rate_scale
from train.settings import TrainSettings

RATES = {"muon_learning_rate": 0.01, "adamw_learning_rate": 2e-3, "ema_decay": 0.98}


def settings(**changes) -> TrainSettings:
    return TrainSettings(model="world-small", precision="fp32", **{**RATES, **changes})


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 10), nn.GELU(), nn.Linear(10, 7, bias=False)
    )


def is_hidden(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and not name.startswith("0.")


def gradients(model: nn.Module, step: int, size: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [size * torch.randn(p.shape, generator=generator) for p in model.parameters()]


def give(model: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.grad = value.to(parameter.dtype)


def newton_schulz(matrix: Tensor) -> Tensor:
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        # Of singular values s, the polynomial 3.4445 s - 4.775 s^3 + 2.0315 s^5.
        u, s, v = torch.linalg.svd(x, full_matrices=False)
        x = u @ torch.diag(3.4445 * s - 4.775 * s**3 + 2.0315 * s**5) @ v
    return x


@pytest.mark.parametrize("size", [0.01, 1.0])  # below and above the clip
def test_steps_are_torchs_adamw_and_muons_formula(size: float) -> None:
    model, options = network(), settings(weight_decay=0.05, steps=20)
    optimizer = Optimizer(dict(model.named_parameters()), options, is_hidden)
    theirs = {name: p.detach().clone() for name, p in model.named_parameters()}
    hidden = [name for name, p in theirs.items() if is_hidden(name, p)]
    momentum = {name: torch.zeros_like(theirs[name], dtype=torch.double) for name in hidden}
    matrix = nn.Parameter(theirs["0.weight"])
    vectors = [nn.Parameter(theirs[n]) for n in theirs if n not in hidden and n != "0.weight"]
    adamw = torch.optim.AdamW(
        [{"params": [matrix]}, {"params": vectors, "weight_decay": 0.0}],
        lr=options.adamw_learning_rate,
        betas=options.adamw_betas,
        weight_decay=0.05,
        foreach=False,
    )
    average = {name: p.clone() for name, p in theirs.items()}
    for step in range(12):
        values = gradients(model, step, size)
        give(model, [value.clone() for value in values])
        scale = learning_rate_scale(step, options)
        norm = optimizer.step(step, scale)
        assert all(p.grad is None for p in model.parameters())

        size_now = torch.cat([value.flatten() for value in values]).norm()
        torch.testing.assert_close(norm, size_now)
        clipped = [value * min(1.0, 1.0 / size_now) for value in values]
        named = dict(zip(theirs, clipped, strict=True))
        for name in hidden:
            momentum[name] = 0.95 * momentum[name] + 0.05 * named[name]
            update = newton_schulz(0.95 * momentum[name] + 0.05 * named[name])
            rate = options.muon_learning_rate * scale
            rows, columns = update.shape
            theirs[name] *= 1 - rate * 0.05
            theirs[name] -= rate * max(1.0, rows / columns) ** 0.5 * update
        for group in adamw.param_groups:
            group["lr"] = options.adamw_learning_rate * scale
        kept = [matrix, *vectors]
        for name, parameter in zip([n for n in theirs if n not in hidden], kept, strict=True):
            parameter.grad = named[name]
        adamw.step()
        decay = min(0.98, (1 + step) / (10 + step))
        for name in average:
            average[name] = decay * average[name] + (1 - decay) * theirs[name]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), theirs[name], rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(optimizer.ema[name], average[name], rtol=1e-4, atol=2e-6)
    assert optimizer.skipped == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad: float) -> None:
    model = network()
    optimizer = Optimizer(dict(model.named_parameters()), settings(weight_decay=0.1), is_hidden)
    give(model, gradients(model, 0))
    optimizer.step(0, 1.0)
    before = copy.deepcopy(optimizer.state_dict())
    values = gradients(model, 1)
    values[2][3, 3] = bad
    give(model, values)
    assert not optimizer.step(1, 1.0).isfinite()
    for name, tensor in optimizer.state_dict().items():
        if name == "steps/skipped":
            assert tensor == 1
        else:
            assert torch.equal(tensor, before[name]), name
    give(model, gradients(model, 2))
    assert optimizer.step(2, 1.0).isfinite()
    assert not torch.equal(optimizer.master["2.weight"], before["weights/2.weight"])
    assert optimizer.skipped == 1


def test_a_model_in_bfloat16_has_float32_masters_and_shares_memory_while_in_float32() -> None:
    model = network()
    optimizer = Optimizer(dict(model.named_parameters()), settings(), is_hidden)
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    assert {name: m.data_ptr() for name, m in optimizer.master.items()} == pointers
    model.bfloat16()
    for step in range(3):
        give(model, gradients(model, step))
        optimizer.step(step, 0.01)
    for name, parameter in model.named_parameters():
        assert optimizer.master[name].dtype == torch.float32
        assert torch.equal(parameter, optimizer.master[name].bfloat16())
        assert not torch.equal(parameter.float(), optimizer.master[name])
    model.float()
    optimizer.write_back()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, optimizer.master[name])


def test_a_parameter_without_gradient_counts_as_zero_and_others_are_left_alone() -> None:
    model = network()
    chosen = {n: p for n, p in model.named_parameters() if n.startswith("4.")}
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(chosen, settings(), is_hidden)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    optimizer.step(0, 1.0)
    assert optimizer.state_dict().keys() == {
        "weights/4.weight",
        "ema/4.weight",
        "moments/4.weight",
        "steps/skipped",
    }
    assert {n for n, p in model.named_parameters() if not p.equal(before[n])} == {"4.weight"}
    moment = optimizer.moments["4.weight"].clone()
    assert optimizer.step(1, 1.0) == 0
    torch.testing.assert_close(optimizer.moments["4.weight"], 0.95 * moment)


def test_a_restored_optimizer_goes_on_bit_for_bit() -> None:
    whole, broken = network(), network()
    one = Optimizer(dict(whole.named_parameters()), settings(), is_hidden)
    two = Optimizer(dict(broken.named_parameters()), settings(), is_hidden)
    for step in range(6):
        give(whole, gradients(whole, step))
        one.step(step, 1.0)
        if step == 2:
            two.load_state_dict(copy.deepcopy(one.state_dict()))
        if step > 2:
            give(broken, gradients(broken, step))
            two.step(step, 1.0)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_a_state_of_another_model_is_refused_whole() -> None:
    model = network()
    optimizer = Optimizer(dict(model.named_parameters()), settings(), is_hidden)
    before = copy.deepcopy(optimizer.state_dict())
    other = {name: tensor + 1 for name, tensor in before.items()}
    other["ema/4.weight"] = torch.zeros(3, 3)
    with pytest.raises(KeyError, match=r"differ in .*ema/4.weight"):
        optimizer.load_state_dict(other)
    assert all(torch.equal(t, before[name]) for name, t in optimizer.state_dict().items())


@pytest.mark.parametrize("half", [False, True])
def test_the_average_can_be_looked_at_in_place(half: bool) -> None:
    model = network()
    optimizer = Optimizer(dict(model.named_parameters()), settings(), is_hidden)
    if half:
        model.bfloat16()
    for step in range(3):
        give(model, gradients(model, step))
        optimizer.step(step, 1.0)
    before = copy.deepcopy(optimizer.state_dict())
    with optimizer.averaged():
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[f"ema/{name}"].to(parameter.dtype))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[f"weights/{name}"].to(parameter.dtype))
    assert all(torch.equal(t, before[name]) for name, t in optimizer.state_dict().items())


def test_the_learning_rate_warms_up_stays_and_cools_down() -> None:
    options = settings(steps=100, warmup_steps=10, cooldown_share=0.5)
    scales = [learning_rate_scale(step, options) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:51] == [1.0] * 42
    assert scales[75] == pytest.approx(0.5)
    assert scales[99] == pytest.approx(0.02)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.35, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 10, 99, 500])
def test_up_to_the_cooldown_a_run_is_that_of_a_longer_one(steps: int, share: float) -> None:
    short = settings(steps=steps, warmup_steps=3, cooldown_share=share)
    long = short.model_copy(update={"steps": 10 * steps})
    done = before_cooldown(short)
    assert 1 <= done <= steps
    for step in range(done):
        assert learning_rate_scale(step, short) == learning_rate_scale(step, long)
    falling = 1.0 if share == 0 else (steps - done) / (share * steps)
    assert done == steps or falling < 1


def test_weights_spread_over_two_processes_are_stepped_as_in_one(tmp_path: Path) -> None:
    """FSDP2: shares of unequal length and none, a bad step, a kill, and another number of them."""
    killed, steps = spread_optimizer.KILLED, spread_optimizer.STEPS
    alone, first_norms = spread_optimizer.train(spread_optimizer.network(), 0, killed, None)
    save_file(alone.state_dict(), tmp_path / "whole.safetensors")
    stored = load_file(tmp_path / "whole.safetensors")
    alone, second_norms = spread_optimizer.train(spread_optimizer.network(), killed, steps, stored)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(spread_optimizer.__file__)
    done = subprocess.run([*command, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, whole, norms in (
        ("first", stored, first_norms),
        ("second", alone.state_dict(), second_norms),
    ):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            theirs = json.loads(file.metadata()["norms"])
        assert theirs == pytest.approx(norms, rel=1e-5, nan_ok=True)
        spread = load_file(tmp_path / f"{name}.safetensors")
        assert spread.keys() == whole.keys()
        for key, tensor in whole.items():
            torch.testing.assert_close(spread[key], tensor, rtol=1e-4, atol=1e-6, msg=key)
    # And from two processes to one.
    spread = load_file(tmp_path / "first.safetensors")
    moved, _ = spread_optimizer.train(spread_optimizer.network(), killed, steps, spread)
    assert moved.skipped == 1
    for key, tensor in alone.state_dict().items():
        torch.testing.assert_close(moved.state_dict()[key], tensor, rtol=1e-4, atol=1e-6, msg=key)
