"""The one interval, held to closed forms, to scipy and to its own p-value."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipelines.statistics.interval import Spread, crossed, estimate, limits, paired, unpaired

RNG = np.random.default_rng(0)


def table(seeds: int = 4, prompts: int = 30) -> np.ndarray:
    """Values whose seeds and prompts both scatter."""
    by_seed, by_prompt = RNG.normal(0, 0.3, (seeds, 1)), RNG.normal(0, 1, (1, prompts))
    return 0.2 + by_seed + by_prompt + RNG.normal(0, 0.5, (seeds, prompts))


def test_with_one_cluster_it_is_students_interval_and_test_over_seeds():
    found = estimate(np.array([[1.0], [2.0], [4.0]]))
    student = stats.ttest_1samp([1.0, 2.0, 4.0], 0.0)
    low, high = student.confidence_interval()
    assert (found.low, found.high, found.p_value) == pytest.approx((low, high, student.pvalue))
    assert (found.spread.seed_df, found.clusters, found.spread.prompt) == (2, 1, 0)


def test_parts_of_a_table_that_is_counted_by_hand():
    # Rows 1, 2 and columns 0, 3: mean squares 1 * 3 / ... of a 2 x 3 table without interaction.
    rows, columns = np.array([[0.0], [2.0]]), np.array([[0.0, 3.0, 6.0]])
    found = estimate(rows + columns)
    # MS_seed = 3 * 2 = 6, MS_cluster = 2 * 9 = 18, MS_residual = 0; parts are those / (2 * 3).
    assert (found.mean, found.spread.seed, found.spread.prompt) == pytest.approx((4, 1, 3))
    half = math.sqrt(stats.t.ppf(0.975, 1) ** 2 * 1 + stats.t.ppf(0.975, 2) ** 2 * 3)
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half))


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero():
    for _ in range(20):
        found = estimate(table())
        assert found.half_width(found.p_value) == pytest.approx(abs(found.mean), rel=1e-6)
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_prompts_of_one_text_count_once():
    values = table()
    twice = np.repeat(values, 2, axis=1)
    named = np.repeat(np.arange(30), 2)
    once, clustered, naive = estimate(values), estimate(twice, named), estimate(twice)
    assert (clustered.mean, clustered.standard_error) == pytest.approx(
        (once.mean, once.standard_error)
    )
    assert clustered.clusters == 30
    assert naive.spread.prompt < clustered.spread.prompt


def test_a_prompt_that_is_undefined_in_a_seed_leaves_that_seed_alone():
    values = table(3, 5)
    values[0, 1] = values[2, 4] = np.nan
    found = estimate(values)
    assert found.per_seed == pytest.approx(np.nanmean(values, 1))
    assert found.mean == pytest.approx(np.nanmean(values, 1).mean())
    nowhere = np.column_stack([values, np.full(3, np.nan)])
    assert estimate(nowhere) == found


def test_a_seed_without_a_value_gives_no_estimate():
    values = table(3, 5)
    values[1] = np.nan
    assert not estimate(values).defined


def test_one_seed_has_no_interval():
    found = estimate(table(1))
    assert found.defined
    assert not found.has_interval
    assert math.isnan(found.low)
    assert math.isnan(found.p_value)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_numbers_everywhere_are_no_proof_of_anything(value: float):
    # 0.4 - 0.3 is no exact 0.1, which must not become a variance.
    found = paired(np.full((5, 40), 0.3 + value), np.full((5, 40), 0.3))
    assert found.mean == pytest.approx(value)
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)


def test_seeds_that_tie_by_chance_are_not_taken_for_certain():
    # Each seed hits once in four, at another prompt.
    found = estimate(np.eye(3, 4))
    assert found.spread.seed > 0
    assert found.p_value > 0.05


def test_shares_end_at_0_and_1_and_their_differences_at_one():
    low_hits = (RNG.random((3, 40)) < 0.05).astype(float)
    found = estimate(low_hits, bounds="share")
    assert 0 < found.low < found.mean < found.high < 1
    # Odds of 1 to 4; variances on their logarithm are those over (0.2 * 0.8)^2, and the seeds' has
    # Cox's term: s^2 = log(1 + 3 seeds * 0.04 / 0.16), s^4 / (2 * 2).
    spread = Spread(np.array(0.2), np.array(0.04 * 0.16), np.array(0.01 * 0.16), np.array(2.0), 9.0)
    seed, prompt = 0.04 / 0.16 + math.log(1 + 3 * 0.04 / 0.16) ** 2 / 4, 0.01 / 0.16
    half = math.sqrt(stats.t.ppf(0.975, 2) ** 2 * seed + stats.t.ppf(0.975, 9) ** 2 * prompt)
    ends = [1 / (1 + 4 * math.exp(away)) for away in (half, -half)]
    assert limits(spread, "share") == pytest.approx(ends)
    wide = replace(spread, mean=np.array(0.9), seed=np.array(0.04), prompt=np.array(0.0))
    low = 0.9 - stats.t.ppf(0.975, 2) * 0.2
    assert limits(wide, "difference of shares") == pytest.approx((low, 1.0))


def test_each_arm_of_other_seeds_has_its_own_degrees_of_freedom():
    a, b = np.array([[1.0], [2.0], [4.0]]), np.array([[0.0], [0.5], [3.0], [1.0]])
    found = unpaired(a, b)
    squares = [stats.t.ppf(0.975, len(arm) - 1) ** 2 * arm.var(ddof=1) / len(arm) for arm in (a, b)]
    assert found.high - found.mean == pytest.approx(math.sqrt(sum(squares)))
    assert found.half_width(found.p_value) == pytest.approx(abs(found.mean), rel=1e-6)
    # Welch's is narrower, and with unequal numbers of seeds too narrow.
    assert found.p_value > stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False).pvalue
    assert not unpaired(a, b[:1]).has_interval
    assert not unpaired(a[:1], b).has_interval


def test_unpaired_arms_share_their_prompts():
    prompts = RNG.normal(0, 5, (1, 50))
    a, b = (prompts + RNG.normal(0, 0.1, (3, 50)) for _ in range(2))
    assert unpaired(a, b).standard_error < 0.1 < estimate(a).standard_error


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="share seeds"):
        paired(np.zeros((2, 5)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="share prompts"):
        unpaired(np.zeros((2, 5)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"\(seeds, prompts\)"):
        estimate(np.zeros(3))


def test_many_studies_at_once_are_each_as_one():
    values = RNG.normal(0, 1, (6, 3, 20))
    made = crossed(values).spread
    each = [estimate(value) for value in values]
    assert made.p_value() == pytest.approx([one.p_value for one in each])
    assert made.half_width() == pytest.approx([one.half_width() for one in each])
