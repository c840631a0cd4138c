"""Variance accounts of runs whose parts are known: do their intervals hold them?"""

from __future__ import annotations

import math

import numpy as np

from pipelines.bench.ablation.made_studies import allowed
from pipelines.bench.common.figures import Figures
from pipelines.statistics.interval import ALPHA, Floats
from pipelines.statistics.variance import NAMES, Levels, account, latin_square, pairing

LEVELS, NOISES = 5, 4
TRUTHS = {
    # Variances: weights, order, noise, rest, sampling, drawing.
    "alike": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "weights-most": (8.0, 1.0, 0.5, 1.0, 0.5, 2.0),
    "no-seed-matters": (0.0, 0.0, 0.0, 1.0, 0.0, 4.0),
}
PARTS = (*NAMES, "rest", "sampling", "drawing")
SHARED = 0.7
"""Correlation of two arms' effects of a seed."""


def account_figures(figures: Figures, studies: int) -> None:
    """Coverage of every part and of the saving, over Latin squares of runs."""
    levels = latin_square(LEVELS)
    least = 2 * (1 - ALPHA) - allowed(1 - ALPHA, studies)
    for name, truth in TRUTHS.items():
        rng = np.random.default_rng(8)
        covered = dict.fromkeys((*PARTS, "saving"), 0)
        paired = truth_of_saving(truth)
        for _ in range(studies):
            a, b = two_arms(rng, levels, truth)
            for part, true in zip(account(levels, a), truth, strict=True):
                covered[part.name] += part.low <= true <= part.high
            saving = pairing(levels, a.mean(1), b.mean(1))
            covered["saving"] += saving.low <= paired <= saving.high
        for part_name, count in covered.items():
            figures.add(
                f"account/{name}/{part_name}/coverage", count / studies, "share", at_least=least
            )


def truth_of_saving(truth: tuple[float, ...]) -> float:
    """Variance of the difference of two runs unpaired, over paired; drawings are never shared."""
    of_seeds, drawing = sum(truth[:4]), truth[5] / NOISES
    return (of_seeds + drawing) / ((1 - SHARED) * of_seeds + drawing)


def two_arms(
    rng: np.random.Generator, levels: Levels, truth: tuple[float, ...]
) -> tuple[Floats, Floats]:
    """`(R, N)` each: effects of seeds and of runs correlate by SHARED, sampling is the same."""
    runs = len(levels)

    def both(variance: float, count: int) -> Floats:
        common, own = rng.normal(0, 1, (1, count)), rng.normal(0, 1, (2, count))
        return math.sqrt(variance) * (math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * own)

    results = both(truth[3], runs)
    for axis in range(3):
        results = results + both(truth[axis], LEVELS)[:, levels[:, axis]]
    sampling = rng.normal(0, math.sqrt(truth[4]), NOISES)
    drawing = rng.normal(0, math.sqrt(truth[5]), (2, runs, NOISES))
    a, b = results[..., None] + sampling + drawing
    return a, b
