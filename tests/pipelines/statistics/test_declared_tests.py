"""Families, margins, interactions and trends."""

import math

import numpy as np
import pytest
from scipy import stats

from pipelines.statistics.equivalence import equivalent, not_worse
from pipelines.statistics.interaction import interaction
from pipelines.statistics.interval import estimate, paired
from pipelines.statistics.multiplicity import claimed, holm
from pipelines.statistics.trend import ordered, slope

RNG = np.random.default_rng(1)


def test_holm_adjusts_step_down_and_keeps_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_what_was_declared_counts_although_it_is_undefined():
    adjusted = holm([math.nan, 0.02, 0.2])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.06, 0.4])
    assert not claimed(adjusted[0])


def test_a_margin_is_tested_as_the_interval_lies_to_it():
    difference = estimate(np.array([[0.01], [-0.01], [0.005], [0.0]]))
    for margin in (0.005, 0.01, 0.02, 0.05):
        assert (not_worse(difference, margin) < 0.05) == (difference.low > -margin)
        both = difference.low > -margin and difference.high < margin
        assert (equivalent(difference, margin) < 0.05) == both
    # One-sided Student's test of the four seeds, twice.
    t = stats.ttest_1samp(difference.per_seed, -0.01, alternative="greater")
    assert not_worse(difference, 0.01) == pytest.approx(2 * t.pvalue)


def test_where_less_is_better_worse_is_more():
    more = estimate(np.array([[0.04], [0.05], [0.06]]))
    assert not_worse(more, 0.02) < 0.05
    assert not_worse(more, 0.02, less_is_better=True) > 0.9


def test_a_difference_without_interval_is_no_equivalence():
    assert math.isnan(equivalent(estimate(np.zeros((1, 5))), 0.1))


def test_forms_that_ask_for_the_same_intents_are_paired_by_them():
    f, g, intents = RNG.normal(0, 1, (4, 20)), RNG.normal(0, 1, (4, 20)), np.arange(20)
    one, other = interaction(f, intents, g, intents), paired(f, g)
    assert (one.mean, one.low, one.p_value) == pytest.approx((other.mean, other.low, other.p_value))


def test_forms_without_common_intents_have_the_prompt_parts_of_both():
    intents = np.arange(40)
    f, g = (
        RNG.normal(0, 1, (1, 40)) + np.zeros((4, 1)),
        RNG.normal(0, 2, (1, 20)) + np.zeros((4, 1)),
    )
    found = interaction(f, intents, g, intents[:20] + 100)
    parts = [estimate(each).spread.prompt for each in (f, g)]
    assert found.mean == pytest.approx(f.mean() - g.mean())
    # One degree of freedom less between both forms' intents than within each.
    assert found.spread.prompt == pytest.approx(sum(parts), rel=0.05)


def test_the_slope_is_that_of_least_squares():
    values = RNG.normal(0, 1, (4, 3, 10))
    doses = [0.0, 50.0, 80.0, 100.0]
    means = values.mean((1, 2))
    assert slope(values, doses).mean == pytest.approx(stats.linregress(doses, means).slope)


def test_the_order_of_doses_is_tested_both_ways():
    rising = np.array([[1.0, 2.0, 3.0, 4.0]] * 4) + RNG.normal(0, 0.1, (4, 4))
    page = stats.page_trend_test(rising).pvalue
    assert ordered(rising) == ordered(-rising) == pytest.approx(2 * page)
    assert math.isnan(ordered(rising[:1]))
