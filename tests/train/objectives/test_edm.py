"""EDM's preconditioning, against the paper and against what diffusers does around a network."""

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

SIGMA = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)
DATA = 0.6


def edm(**settings):
    options = {"timestep_mean": -1.2, "timestep_std": 1.2, "sigma_data": DATA}
    return objective(objective="edm", **{**options, **settings})


def test_the_network_is_shown_and_told_what_diffusers_shows_and_tells_it() -> None:
    x0, noise = pictures()
    own = edm()
    x = own.noised(x0, noise, SIGMA)
    torch.testing.assert_close(x, x0 + SIGMA[:, None, None, None] * noise)
    for sampler in ("euler", "dpm++"):
        scheduler = own.scheduler(sampler, 1.0)
        scheduler.set_timesteps(7)
        torch.testing.assert_close(own.model_time(scheduler.sigmas[:-1]), scheduler.timesteps)
        timestep = scheduler.timesteps[0]
        shown = scheduler.scale_model_input(x, timestep)
        sigma = scheduler.sigmas[0].expand(5)
        torch.testing.assert_close(own.model_input(x, sigma), shown, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(
            own.predicted_x0(noise, x, sigma),
            scheduler.precondition_outputs(x, noise, scheduler.sigmas[0]),
            rtol=1e-5,
            atol=1e-6,
        )


def test_the_loss_is_the_weighted_error_of_the_denoised_picture() -> None:
    x0, noise = pictures()
    own = edm()
    x = own.noised(x0, noise, SIGMA)
    output = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = (SIGMA**2 + DATA**2) / (SIGMA * DATA) ** 2
    error = (own.predicted_x0(output, x, SIGMA) - x0).square().mean(dim=(1, 2, 3))
    loss = own.loss(output, x0, noise, x, SIGMA)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, (weight * error).float())


def test_targets_and_inputs_have_about_unit_variance_at_every_noise_level() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn((2, 5, 3, 64, 64), generator=generator, dtype=torch.float64)
    x0 = DATA * x0
    own = edm()
    x = own.noised(x0, noise, SIGMA)
    spread = own.model_input(x, SIGMA).flatten(1).std(dim=1)
    torch.testing.assert_close(spread, torch.ones(5, dtype=torch.float64), rtol=0.03, atol=0)
    # A network that says nothing has the target's own variance as its loss.
    loss = own.loss(torch.zeros_like(x), x0, noise, x, SIGMA)
    torch.testing.assert_close(loss, torch.ones(5), rtol=0.06, atol=0)


def test_times_are_log_normal_and_validations_those_of_the_sampler() -> None:
    log = edm().times(*numbers()).log()
    assert log.mean().item() == pytest.approx(-1.2, abs=0.01)
    assert log.std().item() == pytest.approx(1.2, abs=0.01)
    scheduler = edm().scheduler("euler", 1.0)
    scheduler.set_timesteps(9)  # ends, middles and borders of four parts
    looked_at = scheduler.sigmas[:-1].flip(0)[1::2]
    torch.testing.assert_close(edm().stratified_times(4), looked_at)


def best_output(shown: Tensor, timestep: Tensor) -> Tensor:
    sigma = torch.exp(4 * timestep)
    total = sigma**2 + DATA**2
    x = shown * total.sqrt()
    x0 = best_x0(x, torch.ones(()), sigma)
    return (x0 - DATA**2 / total * x) / (sigma * DATA / total.sqrt())


@pytest.mark.parametrize("sampler", ["euler", "dpm++"])
def test_the_best_network_draws_the_pictures_it_was_trained_on(sampler: str) -> None:
    drawing = drawn(edm().scheduler(sampler, 1.0), best_output, 60)
    assert drawing.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert drawing.std().item() == pytest.approx(STD, rel=0.05)


def test_samplers_and_thresholding_that_are_not_there_are_told() -> None:
    with pytest.raises(ConfigError, match=r"edm has no sampler 'ddpm'; it has euler, dpm\+\+"):
        edm().scheduler("ddpm", 1.0)
    with pytest.raises(ConfigError, match="'euler' of objective edm has no thresholding"):
        edm().scheduler("euler", 1.0, thresholding=True)
    scheduler = edm().scheduler("dpm++", 1.0, thresholding=True)
    assert scheduler.config.thresholding
    assert scheduler.config.sample_max_value > 100
