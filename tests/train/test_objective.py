"""The formulas of rectified flow, against the paper and against diffusers."""

import numpy as np
import pytest
import torch

from train.objective import (
    euler_step,
    logit_normal_timesteps,
    loss_per_picture,
    noised,
    predicted_velocity,
    predicted_x0,
    sampling_timesteps,
)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn((5, 3, 4, 4), generator=generator, dtype=torch.float64)
    noise = torch.randn((5, 3, 4, 4), generator=generator, dtype=torch.float64)
    return x0, noise, torch.tensor([0.1, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)


def test_the_path_is_the_straight_line_from_picture_to_noise(batch) -> None:
    x0, noise, t = batch
    time = t[:, None, None, None]
    torch.testing.assert_close(noised(x0, noise, t), (1 - time) * x0 + time * noise)


def test_velocity_and_x0_are_two_views_of_one_prediction(batch) -> None:
    x0, noise, t = batch
    x_t, velocity = noised(x0, noise, t), noise - x0
    torch.testing.assert_close(predicted_velocity(x0, x_t, t, "x0"), velocity)
    torch.testing.assert_close(predicted_x0(velocity, x_t, t, "velocity"), x0)


def test_the_loss_of_a_perfect_prediction_is_zero(batch) -> None:
    x0, noise, t = batch
    for weighting in ("x0", "velocity"):
        assert loss_per_picture(x0, x0, noise, t, "x0", weighting).abs().max() == 0
        assert loss_per_picture(noise - x0, x0, noise, t, "velocity", weighting).max() < 1e-12


def test_a_weighting_means_the_same_whatever_the_network_predicts(batch) -> None:
    x0, noise, t = batch
    x_t = noised(x0, noise, t)
    guess = x0 + 0.1
    velocity = predicted_velocity(guess, x_t, t, "x0")
    for weighting in ("x0", "velocity"):
        torch.testing.assert_close(
            loss_per_picture(guess, x0, noise, t, "x0", weighting),
            loss_per_picture(velocity, x0, noise, t, "velocity", weighting),
        )
    expected = torch.full((5,), 0.01) / t.float() ** 2
    torch.testing.assert_close(loss_per_picture(guess, x0, noise, t, "x0", "velocity"), expected)


def test_timesteps_follow_the_logit_normal_with_a_uniform_share() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, generator=generator)
    uniform = torch.rand((2, 200_000), generator=generator)
    t = logit_normal_timesteps(normal, uniform, 1.5, 1.3, 0.0)
    assert torch.logit(t.double()).mean().item() == pytest.approx(1.5, abs=0.02)
    assert torch.logit(t.double()).std().item() == pytest.approx(1.3, abs=0.02)
    mixed = logit_normal_timesteps(normal, uniform, 1.5, 1.3, 0.5)
    share = 0.5 * (t < 0.25).double().mean() + 0.5 * 0.25
    assert (mixed < 0.25).double().mean().item() == pytest.approx(share.item(), abs=0.005)


def test_sampling_timesteps_are_those_of_diffusers() -> None:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=4.0
    )
    scheduler.set_timesteps(12)
    ours = sampling_timesteps(12, 4.0)
    np.testing.assert_allclose(ours[:-1], scheduler.sigmas[:-1], rtol=1e-6)
    assert ours[-1] == 0


def test_an_euler_step_follows_the_predicted_velocity(batch) -> None:
    x0, noise, _ = batch
    t = torch.full((5,), 0.8, dtype=torch.float64)
    x_t = noised(x0, noise, t)
    by_velocity = x_t + (0.3 - 0.8) * predicted_velocity(x0, x_t, t, "x0")
    torch.testing.assert_close(euler_step(x_t, x0, 0.8, 0.3), by_velocity)
    torch.testing.assert_close(euler_step(x_t, x0, 0.8, 0.0), x0)
