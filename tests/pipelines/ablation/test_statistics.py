"""Intervals with the training seed as the unit."""

import math

import numpy as np
import pytest

from pipelines.ablation.metrics import metric
from pipelines.ablation.statistics import (
    Claim,
    Contrast,
    bootstrap_interval,
    claims,
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


def alone(contrast: Contrast) -> Claim:
    """What may be claimed of a contrast that was tested alone."""
    return claims([contrast])[0]


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
        false_by_seeds += alone(paired_contrast(a, b)).claimed
    assert false_by_seeds / 60 < 0.15 < 0.5 < false_by_prompts / 60


def test_a_study_of_three_contrasts_makes_false_claims_in_one_of_twenty_cases_by_holm_alone():
    rng = np.random.default_rng(11)
    studies, unadjusted, claimed = 600, 0, 0
    for _ in range(studies):
        # Three arms without any true effect; seeds move a model more than prompts do.
        means = [rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 0.02, (5, 3)) for _ in range(3)]
        contrasts = [
            paired_contrast(means[i], means[j], draws=300) for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        unadjusted += any(contrast.excludes_zero() for contrast in contrasts)
        claimed += any(claim.claimed for claim in claims(contrasts))
    # Three standard errors of a share of .05 among 600 are .027.
    assert claimed / studies <= 0.05 + 0.027 < 0.1 < unadjusted / studies


def test_a_large_true_effect_is_claimed_with_three_seeds():
    a, b = arms(3, 100, 0.5, 0.03, np.random.default_rng(3))
    contrast = paired_contrast(a, b)
    assert alone(contrast).claimed
    assert contrast.t.low < 0.5 < contrast.t.high
    text = verdict("descriptive", "alt", "object", "descriptive", contrast, alone(contrast))
    assert text.startswith("descriptive beats alt on descriptive prompts (object) by 5")


def test_one_seed_claims_nothing():
    a, b = arms(1, 100, 0.5, 0.03, np.random.default_rng(3))
    contrast = paired_contrast(a, b)
    assert not alone(contrast).claimed
    assert math.isnan(contrast.p_value)
    text = verdict("a", "b", "object", "short", contrast, alone(contrast))
    assert text.startswith("Exploratory")


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
    text = verdict("alt", "short", "malformed", "short", contrast, alone(contrast))
    assert "alt is above short" in text


def test_what_holm_forbids_is_not_claimed_and_the_sentence_says_why():
    clear = paired_contrast(*arms(4, 100, 0.09, 0.02, np.random.default_rng(0)))
    other = paired_contrast(*arms(4, 100, 0.0, 0.02, np.random.default_rng(1)))
    assert clear.excludes_zero()
    assert 0.05 / 8 < clear.p_value < 0.05
    assert alone(clear).claimed
    among = claims([clear, *[other] * 7])[0]
    assert not among.claimed
    text = verdict("a", "b", "colour", "short", clear, among)
    assert text.startswith("No difference of a and b on short prompts (colour) is shown: +")
    assert text.endswith("among 8 contrasts.")


def test_a_cosine_is_told_as_a_cosine_and_not_in_points():
    a, b = arms(5, 100, 0.5, 0.03, np.random.default_rng(3))
    contrast = paired_contrast(a / 100, b / 100)
    text = verdict("a", "b", "clip_similarity", "short", contrast, alone(contrast))
    assert text.startswith("a beats b on short prompts (CLIP similarity) by 0.0047 [0.0044")
    assert "points" not in text


@pytest.mark.parametrize(
    ("name", "difference", "limits"),
    [
        ("colour", False, (0.0, 1.0)),
        ("colour", True, (-1.0, 1.0)),
        ("hallucinated", False, (0.0, 3.0)),
        ("hallucinated", True, (-3.0, 3.0)),
        ("clip_similarity", False, (-1.0, 1.0)),
        ("a_judge_s_own", True, (-3.0, 3.0)),
    ],
)
def test_an_interval_ends_where_the_metric_ends(name, difference, limits):
    assert metric(name).within(-3.0, 3.0, difference) == limits


def test_a_value_that_rounds_to_nothing_has_no_sign():
    assert metric("colour").shown(-0.0001) == "0.0"
    assert metric("colour").limits(-0.034, 0.5) == "[-3.4, 50.0]"
