"""Pictures hang on their own seed alone, and guidance, conditions and sizes do what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curate.base.errors import ConfigError
from tests.train.test_exported_model import trained_family
from train.backbones import ConditionTokens
from train.model import Trained
from train.objectives import build_objective
from train.sample import asked_buckets, from_uint8, generate, to_uint8
from train.samplers import DDPM_STEPS, SAMPLERS, refuse_sampling_steps
from train.settings import TrainSettings

PROMPTS = ["a red circle", "a blue square", "green", "a cat"]


@pytest.mark.parametrize("name", ["sd15", "sd15 ddpm", "flux", "pixart edm"])
def test_a_picture_does_not_hang_on_the_batch(name: str, tmp_path: Path):
    trained = trained_family(name, tmp_path)
    together = generate(trained, PROMPTS, seed=5).astype(int)
    assert together.shape == (4, 32, 32, 3)
    assert np.abs(generate(trained, PROMPTS, seed=5, batch_size=3) - together).max() <= 2
    assert np.abs(generate(trained, PROMPTS[2:], seed=7) - together[2:]).max() <= 2
    assert np.array_equal(generate(trained, PROMPTS, seed=5), together)
    assert np.abs(generate(trained, PROMPTS, seed=50) - together).max() > 20
    keyed = generate(trained, PROMPTS[::-1], noise_keys=[8, 7, 6, 5])
    assert np.abs(keyed[::-1] - together).max() <= 2
    with pytest.raises(ConfigError, match="1 noise keys for 4 prompts"):
        generate(trained, PROMPTS, noise_keys=[5])


def test_steps_that_diffusers_would_miscount_are_refused(tmp_path: Path):
    trained = trained_family("sd15 ddpm", tmp_path)
    for steps, sentence in (
        (61, "61 sampler steps to 62 and spoil the last one; take 60"),
        (122, "take 123"),
        (1001, "cannot take 1,001"),
        (0, "at least one"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            generate(trained, PROMPTS[:1], seed=5, steps=steps)


@pytest.mark.parametrize("sampler", SAMPLERS["ddpm"])
def test_all_other_numbers_of_steps_are_taken_as_asked(sampler: str):
    scheduler = build_objective(TrainSettings(model="sd15")).scheduler(sampler, 1.0)
    refused = []
    for steps in range(1, DDPM_STEPS + 1):
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps
        try:
            refuse_sampling_steps("ddpm", steps)
        except ConfigError:
            refused.append(steps)
            assert (len(times), times[-1]) == (steps + 1, -1)
        else:
            assert len(times) == steps
            assert times.min() >= 0
    assert refused[:4] == [61, 103, 121, 122]


def test_guidance_leads_away_from_what_is_negative(tmp_path: Path):
    trained = trained_family("sd15", tmp_path)
    own = generate(trained, PROMPTS[:1], seed=5).astype(int)
    empty = generate(trained, PROMPTS[:1], seed=5, negative_prompts=[""])
    other = generate(trained, PROMPTS[:1], seed=5, negative_prompts=["blue"])
    plain = generate(trained, PROMPTS[:1], seed=5, guidance_scale=1)
    # Away from the prompt itself there is nowhere to go.
    same = generate(trained, PROMPTS[:1], seed=5, negative_prompts=PROMPTS[:1])
    assert np.array_equal(empty, own)
    assert np.abs(other - own).max() > 10
    assert np.abs(same.astype(int) - plain).max() <= 2
    with pytest.raises(ConfigError, match="2 negative prompts for 1 prompts"):
        generate(trained, PROMPTS[:1], seed=5, negative_prompts=["", ""])


def test_a_distilled_network_reads_the_scale_in_one_pass(tmp_path: Path):
    trained = trained_family("flux dev", tmp_path)
    shown: list[int] = []
    inner = trained.model.backbone.inner
    inner.register_forward_pre_hook(
        lambda module, args, given: shown.append(len(given["hidden_states"])), with_kwargs=True
    )
    generate(trained, PROMPTS[:1], seed=5)
    assert shown == [1] * 4


def told(folder: Path) -> Trained:
    """A model that is told two scores."""
    trained = trained_family(
        "pixart", folder, condition_on=("aesthetic", "sharpness"), condition_buckets=4
    )
    table = ConditionTokens(2, 4, trained.model.text.width)
    with torch.no_grad():
        table.table.mul_(100)
    trained.model.conditions = table
    return trained


def test_scores_are_asked_for_by_quantile_or_bucket(tmp_path: Path):
    trained = told(tmp_path)
    settings = trained.settings
    assert asked_buckets(settings, {"sharpness": 0.9}).tolist() == [[0, 4]]
    assert asked_buckets(settings, {"aesthetic": 1, "sharpness": 1.0}).tolist() == [[1, 4]]
    assert asked_buckets(settings, {"aesthetic": 0.0}).tolist() == [[1, 0]]
    for wrong in (5, 0, 1.5):
        with pytest.raises(ConfigError, match="bucket from 1 to 4"):
            asked_buckets(settings, {"aesthetic": wrong})
    with pytest.raises(ConfigError, match="did you mean 'aesthetic'"):
        asked_buckets(settings, {"aestetic": 0.5})
    high = generate(trained, PROMPTS[:1], seed=5, conditions={"aesthetic": 0.9}).astype(int)
    low = generate(trained, PROMPTS[:1], seed=5, conditions={"aesthetic": 0.1})
    silent = generate(trained, PROMPTS[:1], seed=5)
    assert np.abs(high - low).max() > 10
    assert np.abs(high - silent).max() > 10


def test_other_sizes_are_drawn_where_they_fit(tmp_path: Path):
    trained = trained_family("sdxl", tmp_path)
    assert generate(trained, PROMPTS[:2], seed=5, height=16, width=48).shape == (2, 16, 48, 3)
    assert generate(trained, [], seed=5).shape == (0, 32, 32, 3)
    with pytest.raises(ConfigError, match="multiples of 8 pixels"):
        generate(trained, PROMPTS[:1], seed=5, height=20)


def test_levels_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    assert np.array_equal(to_uint8(from_uint8(levels)), levels.numpy())
