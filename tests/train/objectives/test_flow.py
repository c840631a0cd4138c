"""The formulas of rectified flow, against the paper and against diffusers."""

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

T = torch.tensor([0.1, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)


def flow(prediction: str = "sample", weighting: str = "none", **settings):
    return objective(prediction_type=prediction, loss_weighting=weighting, **settings)


def test_the_path_is_the_straight_line_from_picture_to_noise() -> None:
    x0, noise = pictures()
    time = T[:, None, None, None]
    x_t = flow().noised(x0, noise, T)
    torch.testing.assert_close(x_t, (1 - time) * x0 + time * noise)
    assert flow().model_input(x_t, T) is x_t
    torch.testing.assert_close(flow().model_time(T), 1000 * T.float())


def test_velocity_and_picture_are_two_views_of_one_prediction() -> None:
    x0, noise = pictures()
    x_t = flow().noised(x0, noise, T)
    torch.testing.assert_close(flow("velocity").predicted_x0(noise - x0, x_t, T), x0)
    assert flow("sample").predicted_x0(x0, x_t, T) is x0


@pytest.mark.parametrize("weighting", ["sample", "velocity", "none"])
def test_the_loss_of_a_perfect_prediction_is_zero(weighting: str) -> None:
    x0, noise = pictures()
    x_t = flow().noised(x0, noise, T)
    assert flow("sample", weighting).loss(x0, x0, noise, x_t, T).max() == 0
    assert flow("velocity", weighting).loss(noise - x0, x0, noise, x_t, T).max() < 1e-12


def test_a_weighting_means_the_same_whatever_the_network_predicts() -> None:
    x0, noise = pictures()
    x_t = flow().noised(x0, noise, T)
    guess = x0 + 0.1
    velocity = (x_t - guess) / T[:, None, None, None]
    of_sample, of_velocity = torch.full((5,), 0.01), 0.01 / T.float() ** 2
    for weighting, expected in (("sample", of_sample), ("velocity", of_velocity)):
        for prediction, output in (("sample", guess), ("velocity", velocity)):
            loss = flow(prediction, weighting).loss(output, x0, noise, x_t, T)
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, expected)
    own = flow("velocity", "none").loss(velocity, x0, noise, x_t, T)
    torch.testing.assert_close(own, of_velocity)
    torch.testing.assert_close(flow("sample", "none").loss(guess, x0, noise, x_t, T), of_sample)


def test_the_velocity_weight_of_a_predicted_picture_is_bounded() -> None:
    x0, noise = pictures(1)
    t = torch.tensor([0.001])
    loss = flow("sample", "velocity").loss(x0 + 1, x0, noise, x0, t)
    torch.testing.assert_close(loss, torch.tensor([400.0]))


def test_times_follow_the_logit_normal_with_a_uniform_share() -> None:
    normal, uniform = numbers()
    options = {"timestep_mean": 1.5, "timestep_std": 1.3}
    t = flow(timestep_uniform_share=0.0, **options).times(normal, uniform)
    assert torch.logit(t.double()).mean().item() == pytest.approx(1.5, abs=0.02)
    assert torch.logit(t.double()).std().item() == pytest.approx(1.3, abs=0.02)
    mixed = flow(timestep_uniform_share=0.5, **options).times(normal, uniform)
    share = 0.5 * (t < 0.25).double().mean() + 0.5 * 0.25
    assert (mixed < 0.25).double().mean().item() == pytest.approx(share.item(), abs=0.005)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_uniform_times_are_uniform_before_the_shift(shift: float) -> None:
    options = {"timestep_sampling": "uniform", "discrete_flow_shift": shift}
    t = flow(**options).times(*numbers())
    quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    expected = shift * quantiles / (1 + (shift - 1) * quantiles)
    torch.testing.assert_close(torch.quantile(t, quantiles), expected, atol=0.005, rtol=0)
    assert 0 < t.min() < t.max() < 1


def test_validation_looks_at_the_middles_of_even_parts() -> None:
    assert flow(discrete_flow_shift=3.0).stratified_times(4).tolist() == [
        0.125,
        0.375,
        0.625,
        0.875,
    ]


def best_output(prediction: str):
    def network(x_t: Tensor, timestep: Tensor) -> Tensor:
        t = timestep / 1000
        x0 = best_x0(x_t, 1 - t, t)
        return x0 if prediction == "sample" else (x_t - x0) / t

    return network


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("prediction", ["sample", "velocity"])
@pytest.mark.parametrize("sampler", ["euler", "dpm++"])
def test_the_best_network_draws_the_pictures_it_was_trained_on(
    sampler: str, prediction: str, shift: float
) -> None:
    steps = 200 if sampler == "euler" else 60
    drawing = drawn(flow(prediction).scheduler(sampler, shift), best_output(prediction), steps)
    assert drawing.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert drawing.std().item() == pytest.approx(STD, rel=0.02)


def test_euler_for_predicted_pictures_is_the_euler_step() -> None:
    scheduler = flow("sample").scheduler("euler", 4.0)
    scheduler.set_timesteps(12)
    t = 1 - torch.linspace(1, 1e-3, 13, dtype=torch.float64)
    t = (4 * t / (1 + 3 * t)).flip(0)
    torch.testing.assert_close(scheduler.sigmas.double(), t, rtol=1e-6, atol=0)
    x_t, x0 = pictures()
    step = scheduler.step(x0, scheduler.timesteps[0], x_t, return_dict=False)[0]
    torch.testing.assert_close(step, x_t + (t[1] - t[0]) * (x_t - x0) / t[0], rtol=1e-5, atol=1e-5)


def test_samplers_and_thresholding_that_are_not_there_are_told() -> None:
    with pytest.raises(ConfigError, match=r"flow has no sampler 'ddim'; it has euler, dpm\+\+"):
        flow().scheduler("ddim", 1.0)
    with pytest.raises(ConfigError, match="'euler' of objective flow has no thresholding"):
        flow("velocity").scheduler("euler", 1.0, thresholding=True)
