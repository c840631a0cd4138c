"""Intervals with the training seed as the unit."""

import math

import numpy as np
import pytest

from pipelines.ablation.statistics import (
    bootstrap_interval,
    holm,
    paired_contrast,
    per_seed_means,
    t_interval,
    verdict,
)


def arms(seeds: int, prompts: int, effect: float, seed_sd: float, rng: np.random.Generator):
    """Two arms whose difference has the mean `effect` and varies from seed to seed."""
    shared = rng.normal(0, 0.3, prompts)
    b = shared + rng.normal(0, 0.2, (seeds, prompts))
    a = shared + effect + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.2, (seeds, prompts))
    return a, b


def test_the_t_interval_agrees_with_the_textbook():
    # Three values 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, df=2) = 4.302653.
    interval = t_interval(np.array([1.0, 2.0, 3.0]))
    assert interval.mean == pytest.approx(2.0)
    assert interval.high == pytest.approx(2.0 + 4.302653 / math.sqrt(3), rel=1e-6)


def test_with_no_true_effect_the_t_interval_covers_zero_19_times_in_20():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        a, b = arms(4, 50, 0.0, 0.1, rng)
        covered += not t_interval(per_seed_means(a - b)).excludes_zero()
    # Binomial(400, .95): four standard errors are 0.044.
    assert covered / 400 == pytest.approx(0.95, abs=0.044)


def test_a_prompt_only_interval_would_claim_what_the_seed_interval_does_not():
    rng = np.random.default_rng(1)
    false_by_prompts = false_by_seeds = 0
    for _ in range(60):
        a, b = arms(3, 200, 0.0, 0.1, rng)
        single = a[:1] - b[:1]
        false_by_prompts += bootstrap_interval(single).excludes_zero()
        false_by_seeds += paired_contrast(a, b).claimed
    assert false_by_seeds / 60 < 0.15 < 0.5 < false_by_prompts / 60


def test_a_large_true_effect_is_claimed_with_three_seeds():
    a, b = arms(3, 100, 0.5, 0.03, np.random.default_rng(3))
    contrast = paired_contrast(a, b)
    assert contrast.claimed
    assert contrast.t.low < 0.5 < contrast.t.high
    assert "beats" in verdict("descriptive", "alt", "object", "descriptive", contrast, 3)


def test_one_seed_claims_nothing():
    a, b = arms(1, 100, 0.5, 0.03, np.random.default_rng(3))
    contrast = paired_contrast(a, b)
    assert not contrast.claimed
    assert math.isnan(contrast.p_value)
    assert verdict("a", "b", "object", "short", contrast, 1).startswith("Exploratory")


def test_undefined_values_leave_the_pair_in_both_arms():
    a = np.array([[1.0, np.nan, 0.0]])
    b = np.array([[0.0, 1.0, 0.0]])
    assert paired_contrast(a, b).difference == pytest.approx(0.5)


def test_arms_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match="share seeds"):
        paired_contrast(np.zeros((2, 5)), np.zeros((3, 5)))


def test_holm_adjusts_step_down_and_keeps_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([math.nan, 0.2])[0])
    assert holm([math.nan, 0.2])[1] == pytest.approx(0.2)


def test_more_malformed_objects_are_not_called_a_win():
    a, b = arms(3, 100, 0.5, 0.03, np.random.default_rng(3))
    contrast = paired_contrast(a, b)
    text = verdict("alt", "short", "malformed", "short", contrast, 3)
    assert "alt is above short" in text
