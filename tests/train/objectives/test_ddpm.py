"""Diffusion over a thousand steps: diffusers' own numbers, and weights computed apart."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from curate.base.errors import ConfigError
from tests.train.objectives.gaussian import (
    MEAN,
    STD,
    best_x0,
    drawn,
    numbers,
    objective,
    pictures,
)

SCHEDULES = ["linear", "scaled_linear", "cosine", "sigmoid"]
T = torch.tensor([0, 1, 400, 998, 999])


def ddpm(prediction: str = "v_prediction", schedule: str = "scaled_linear", **settings):
    options = {"prediction_type": prediction, "noise_schedule": schedule}
    return objective(objective="ddpm", **options, **settings)


def kept(schedule: str, zero: bool) -> np.ndarray:
    """Cumulative products of 1 - beta, from the papers, float64."""
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, 1000)
    elif schedule == "scaled_linear":
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    elif schedule == "sigmoid":
        betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.02 - 1e-4) + 1e-4
    else:
        f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    root = np.sqrt(np.cumprod(1 - betas))
    if zero:  # Lin et al. 2023, algorithm 1
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_is_added_as_the_papers_and_diffusers_add_it(schedule: str, zero: bool) -> None:
    from diffusers import DDPMScheduler

    x0, noise = pictures()
    own = ddpm(schedule=schedule, zero_terminal_snr=zero)
    x_t = own.noised(x0, noise, T)
    scheduler = own.scheduler("ddpm", 1.0)
    assert isinstance(scheduler, DDPMScheduler)
    torch.testing.assert_close(x_t, scheduler.add_noise(x0, noise, T), rtol=1e-5, atol=1e-5)
    share = torch.from_numpy(kept(schedule, zero))[T][:, None, None, None]
    expected = share.sqrt() * x0 + (1 - share).sqrt() * noise
    torch.testing.assert_close(x_t, expected, rtol=1e-4, atol=1e-4)
    assert (x_t[-1].equal(noise[-1])) == zero
    torch.testing.assert_close(own.model_time(T), T.float())
    assert own.model_input(x_t, T) is x_t


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_is_diffusers_and_gives_the_picture_back(prediction: str) -> None:
    x0, noise = pictures()
    own = ddpm(prediction)
    scheduler = own.scheduler("ddpm", 1.0)
    targets = {"epsilon": noise, "sample": x0, "v_prediction": scheduler.get_velocity(x0, noise, T)}
    x_t = own.noised(x0, noise, T)
    torch.testing.assert_close(
        own.predicted_x0(targets[prediction], x_t, T), x0, rtol=1e-4, atol=1e-4
    )
    assert own.loss(targets[prediction], x0, noise, x_t, T).max() < 1e-12
    off = own.loss(targets[prediction] + 0.1, x0, noise, x_t, T)
    torch.testing.assert_close(off, torch.full((5,), 0.01), rtol=1e-4, atol=0)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_same_error_of_the_picture_the_same(prediction: str, zero: bool) -> None:
    if zero and prediction == "epsilon":
        pytest.skip("refused, see below")
    x0, noise = pictures(1000)
    t = torch.arange(1000)
    own = ddpm(prediction, "linear", snr_gamma=5.0, zero_terminal_snr=zero)
    x_t = own.noised(x0, noise, t)
    share = torch.from_numpy(kept("linear", zero))
    a, s = share.sqrt()[:, None, None, None], (1 - share).sqrt()[:, None, None, None]
    guess = x0 + 0.1
    epsilon = (x_t - a * guess) / s
    outputs = {"sample": guess, "epsilon": epsilon, "v_prediction": a * epsilon - s * guess}
    loss = own.loss(outputs[prediction], x0, noise, x_t, t)
    snr = (share / (1 - share)).tolist()
    expected = torch.tensor([min(ratio, 5.0) * 0.01 for ratio in snr])
    torch.testing.assert_close(loss[:999], expected[:999], rtol=2e-3, atol=1e-6)
    # Where all is noise the paper's weight is 0, and the first step of a sampler untrained.
    last = 0.01 if zero else expected[999].item()
    assert loss[999].item() == pytest.approx(last, rel=2e-3)


def test_epsilon_with_zero_terminal_snr_is_refused() -> None:
    with pytest.raises(ConfigError, match="zero_terminal_snr needs prediction_type v_prediction"):
        ddpm("epsilon", zero_terminal_snr=True)


def test_times_are_all_steps_alike() -> None:
    t = ddpm().times(*numbers())
    counts = torch.bincount(t, minlength=1000)
    assert len(counts) == 1000
    assert counts.min() > 120  # 200 each, give or take 14
    assert counts.max() < 290
    least = ddpm().times(torch.zeros(2), torch.tensor([[0.0, 0.0], [0.0, 1 - 2**-24]]))
    assert least.tolist() == [0, 999]
    assert ddpm().stratified_times(4).tolist() == [125, 375, 625, 875]


def best_output(prediction: str, share: Tensor):
    def network(x_t: Tensor, timestep: Tensor) -> Tensor:
        now = share[timestep.long()]
        a, s = now.sqrt(), (1 - now).sqrt()
        x0 = best_x0(x_t, a, s)
        if prediction == "sample":
            return x0
        # Where nothing of the picture is left, the noise is all of x_t.
        epsilon = (x_t - a * x0) / s
        return epsilon if prediction == "epsilon" else a * epsilon - s * x0

    return network


@pytest.mark.parametrize("sampler", ["euler", "ddim", "ddpm", "dpm++"])
@pytest.mark.parametrize(
    ("prediction", "schedule", "zero"),
    [
        ("epsilon", "scaled_linear", False),
        ("epsilon", "linear", False),
        ("v_prediction", "scaled_linear", True),
        ("v_prediction", "cosine", False),
        ("sample", "sigmoid", True),
        ("sample", "cosine", False),
    ],
)
def test_the_best_network_draws_the_pictures_it_was_trained_on(
    sampler: str, prediction: str, schedule: str, zero: bool
) -> None:
    own = ddpm(prediction, schedule, zero_terminal_snr=zero)
    stored = json.loads(own.scheduler(sampler, 1.0).to_json_string())
    scheduler = type(own.scheduler(sampler, 1.0)).from_config(stored)
    share = torch.from_numpy(kept(schedule, zero)).float()
    steps = 250 if sampler == "ddpm" else 60
    drawing = drawn(scheduler, best_output(prediction, share), steps)
    assert scheduler.timesteps[0] == 999 or schedule == "cosine"
    # Stable Diffusion's schedule ends in .07 of the picture, which samplers start without.
    bound = 0.02 if schedule == "scaled_linear" and not zero else 0.01
    assert drawing.mean().item() == pytest.approx(MEAN, abs=bound)
    assert drawing.std().item() == pytest.approx(STD, rel=0.05)


def test_ddim_is_what_euler_means() -> None:
    from diffusers import DDIMScheduler

    assert isinstance(ddpm().scheduler("euler", 1.0), DDIMScheduler)
    with pytest.raises(ConfigError, match="ddpm has no sampler 'heun'; it has euler, ddim, ddpm"):
        ddpm().scheduler("heun", 1.0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++"])
def test_thresholding_divides_by_the_percentile_and_does_not_clip(sampler: str) -> None:
    scheduler = ddpm("sample").scheduler(sampler, 1.0, thresholding=True)
    x0 = torch.linspace(-2, 2, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    s = torch.quantile(x0.abs().flatten(1), 0.995, dim=1).view(2, 1, 1, 1)
    torch.testing.assert_close(scheduler._threshold_sample(x0), x0.clamp(-s, s) / s)
    scheduler.set_timesteps(2)
    noise = torch.zeros_like(x0)
    for timestep in scheduler.timesteps:
        noise = scheduler.step(x0, timestep, noise, return_dict=False)[0]
    torch.testing.assert_close(noise, x0.clamp(-s, s) / s, rtol=1e-4, atol=1e-4)
