"""The ablation's own statistics on studies whose truth is known.

`python -m pipelines.bench.ablation.simulation`, or `caplab bench ablation`. Three arms and three
declared contrasts; every figure's goal has three standard errors of the simulation on top.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.bench.ablation.made_accounts import account_figures
from pipelines.bench.ablation.made_studies import HITS, MIXES, Mix, allowed, normal_arms
from pipelines.bench.ablation.promises import equivalence_figures, power_figures, trend_figures
from pipelines.bench.common.figures import Figures, render
from pipelines.statistics.interaction import interaction
from pipelines.statistics.interval import ALPHA, Floats, Spread, crossed, limits, unpaired
from pipelines.statistics.multiplicity import claimed, holm

SEEDS = (3, 5, 8)
PROMPTS = 60
PAIRS = ((0, 1), (0, 2), (1, 2))
STUDIES = 4000


def simulation_figures(studies: int = STUDIES, parts: str = "all") -> Figures:
    """Every promise with the share of `studies` that kept or broke it.

    Args:
        parts: "claims" for the false ones and coverage alone, or "all".
    """
    figures = Figures("ablation")
    for seeds in SEEDS:
        for mix in MIXES:
            _normal(figures, mix, seeds, studies)
    for seeds in SEEDS:
        for hits in HITS:
            rng = np.random.default_rng(1)
            values = hits.arms(rng, studies, 3, seeds)
            name = f"{hits.name}/{seeds}-seeds"
            _false_claims(figures, name, values)
            _coverage_of_shares(figures, name, values[:, 0], hits.true_mean())
    if parts == "all":
        for seeds in SEEDS:
            _interactions(figures, seeds, studies)
            _other_seeds(figures, seeds, studies)
        equivalence_figures(figures, studies)
        trend_figures(figures, studies)
        account_figures(figures, studies)
        power_figures(figures, studies)
    return figures


def _normal(figures: Figures, mix: Mix, seeds: int, studies: int) -> None:
    rng = np.random.default_rng(0)
    values = normal_arms(rng, mix.variances(seeds, PROMPTS), studies, 3, seeds, PROMPTS)
    name = f"{mix.name}/{seeds}-seeds"
    spread = _false_claims(figures, name, values)
    half = spread.half_width()
    figures.add(
        f"{name}/coverage",
        float(np.mean(np.abs(spread.mean) <= half)),
        "share",
        at_least=2 * (1 - ALPHA) - allowed(1 - ALPHA, studies),
    )
    for what, p_values in _others(spread).items():
        figures.add(f"{name}/{what}", float(np.mean(p_values < ALPHA)), "share")


def _false_claims(figures: Figures, name: str, values: Floats) -> Spread:
    """Add the share of studies that claim any of three contrasts; the first contrast's spread."""
    spreads = [crossed(values[:, a] - values[:, b]).spread for a, b in PAIRS]
    tests = np.stack([spread.p_value() for spread in spreads], 1)
    wrong = [any(claimed(p) for p in holm(study)) for study in tests.tolist()]
    studies = len(values)
    figures.add(
        f"{name}/false-claims", float(np.mean(wrong)), "share", at_most=allowed(ALPHA, studies)
    )
    return spreads[0]


def _coverage_of_shares(figures: Figures, name: str, values: Floats, truth: float) -> None:
    spread = crossed(values).spread
    low, high = limits(spread, "share")
    has = spread.variance > 0  # where all pictures are alike there is no interval
    low, high = low[has], high[has]
    figures.add(
        f"{name}/coverage-of-share",
        float(np.mean((low <= truth) & (truth <= high))),
        "share",
        at_least=2 * (1 - ALPHA) - allowed(1 - ALPHA, len(values)),
    )
    figures.add(f"{name}/no-interval", float(1 - has.mean()), "share")


def _others(spread: Spread) -> dict[str, Floats]:
    """What is not taken: Student's t over seeds alone, and Welch-Satterthwaite's pooled degrees."""
    from scipy.special import stdtr

    variance = spread.seed + spread.prompt
    df = variance**2 / (spread.seed**2 / spread.seed_df + spread.prompt**2 / spread.prompt_df)
    distance = np.abs(spread.mean)
    return {
        "seeds-alone": 2 * stdtr(spread.seed_df, -distance / np.sqrt(spread.seed)),
        "satterthwaite": 2 * stdtr(df, -distance / np.sqrt(variance)),
    }


def _interactions(figures: Figures, seeds: int, studies: int) -> None:
    """Two forms that share half of their intents; seeds and prompts weigh alike."""
    rng = np.random.default_rng(2)
    parts = Mix(0.4, 0.4, 0.2).variances(seeds, PROMPTS)
    on_f, on_g = np.moveaxis(normal_arms(rng, parts, studies, 2, seeds, PROMPTS), 1, 0)
    half = PROMPTS // 2
    shared = rng.normal(0, math.sqrt(parts.prompt / 2), (studies, 1, half))
    on_f[:, :, half:] += shared
    on_g[:, :, :half] += shared
    places = np.arange(PROMPTS)
    wrong = [
        interaction(f, places, g, places + half).p_value < ALPHA
        for f, g in zip(on_f, on_g, strict=True)
    ]
    figures.add(
        f"interaction/{seeds}-seeds/false-claims",
        float(np.mean(wrong)),
        "share",
        at_most=allowed(ALPHA, studies),
    )


def _other_seeds(figures: Figures, seeds: int, studies: int) -> None:
    """Two arms of other seeds and the same prompts, one of them with three seeds."""
    for mix in (Mix(1, 0, 0), Mix(0.5, 0.5, 0)):
        rng = np.random.default_rng(6)
        arms = normal_arms(rng, mix.variances(seeds, PROMPTS), studies, 2, seeds, PROMPTS)
        wrong = [unpaired(a, b[:3]).p_value < ALPHA for a, b in arms]
        figures.add(
            f"other-seeds/{mix.name}/{seeds}-and-3-seeds/false-claims",
            float(np.mean(wrong)),
            "share",
            at_most=allowed(ALPHA, studies),
        )


if __name__ == "__main__":
    print(render(simulation_figures()))
