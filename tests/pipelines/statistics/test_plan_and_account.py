"""From what a pilot scattered to a plan; from crossed runs to a variance account."""

import numpy as np
import pytest

from pipelines.statistics.plan import Cost, Variances, options, power, seeds_needed, variances
from pipelines.statistics.variance import account, latin_square, pairing

RNG = np.random.default_rng(2)


def whole_crossing(*counts: int) -> np.ndarray:
    """Every level of each seed with every other."""
    return np.stack([axis.ravel() for axis in np.indices(counts)], 1)


def test_a_pilot_s_parts_are_found_again():
    drawn = RNG.normal(0, 3, (40, 1, 1)) + RNG.normal(0, 4, (1, 300, 1))
    drawn = drawn + RNG.normal(0, 5, (40, 300, 1)) + RNG.normal(0, 6, (40, 300, 4))
    found = variances(drawn)
    got = np.sqrt([found.seed, found.prompt, found.both, found.noise])
    assert got == pytest.approx([3, 4, 5, 6], rel=0.25)
    assert found.cautious.seed > found.seed
    # With one noise a prompt the two cannot be told apart, and more noises promise nothing.
    single = variances(drawn[..., :1])
    assert single.noise == 0
    assert single.both == pytest.approx(5**2 + 6**2, rel=0.1)


def test_power_at_no_difference_is_the_level():
    parts = Variances(1.0, 1e-9, 1e-9, 0.0, 3, 1.0)
    assert power(parts, 0.0, 5, 100, 1, family=1) == pytest.approx(0.05, abs=0.011)
    assert power(parts, 0.0, 5, 100, 1, family=3) == pytest.approx(0.05 / 3, abs=0.007)


def test_seeds_alone_need_what_students_test_needs():
    # Textbook: n = 10 detect one standard deviation in 80% of cases, two-sided 5%.
    parts = Variances(1.0, 0.0, 0.0, 0.0, 3, 1.0)
    assert seeds_needed(parts, 1.0, 100, 1, family=1) in (10, 11)
    assert seeds_needed(parts, 0.01, 100, 1, family=1) is None


def test_the_cheapest_plan_comes_first():
    parts = Variances(1.0, 25.0, 100.0, 900.0, 3, 4.0)
    found = options(parts, 5.0, (50, 100), (1, 4), 3, Cost(3, 300.0, 0.05, 3.0))
    assert [option.hours for option in found] == sorted(option.hours for option in found)
    assert all(option.cautious_hours >= option.hours for option in found)
    best = found[0]
    pictures = 3.0 * best.prompts * best.noises * 0.05
    assert best.hours == pytest.approx(3 * best.seeds * (300 + pictures) / 3600)


def test_a_pilot_of_one_seed_plans_nothing():
    with pytest.raises(ValueError, match="two seeds"):
        variances(np.zeros((1, 10, 2)))


@pytest.mark.parametrize("levels", [latin_square(4), whole_crossing(3, 3, 2)])
def test_each_seed_gets_its_own_part_of_the_account(levels: np.ndarray):
    results = 10.0 * levels[:, 0] + 1.0 * (levels[:, 1] == 0) + RNG.normal(0, 0.01, len(levels))
    values = results[:, None] + RNG.normal(0, 0.1, (len(levels), 2))
    parts = {part.name: part for part in account(levels, values)}
    weights, order = (np.unique(levels[:, axis]) for axis in (0, 1))
    assert parts["weights"].variance == pytest.approx(np.var(10.0 * weights, ddof=1), rel=0.05)
    assert parts["order"].variance == pytest.approx(np.var(order == 0, ddof=1), rel=0.3)
    assert parts["noise"].variance < 0.05
    assert parts["drawing"].low < 0.01 < parts["drawing"].high
    assert sum(part.share for part in parts.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="meet evenly"):
        account(levels[1:], values[1:])


def test_pairing_doubles_what_runs_are_worth_where_arms_share_half():
    levels = latin_square(40)
    shared = RNG.normal(0, 1, len(levels))
    a, b = (shared + RNG.normal(0, 1, len(levels)) for _ in range(2))
    saved = pairing(levels, a, b)
    assert saved.ratio == pytest.approx(2, abs=0.2)
    assert saved.low < saved.ratio < saved.high
