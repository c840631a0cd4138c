"""Intervals for an ablation: the training seed is the unit, arms are paired by seed and prompt.

An interval over prompts alone treats one trained model as if it were the recipe; with no true
effect it excludes zero in a fifth to most of all cases, the more prompts the worse, because
retraining with another seed moves a model more than any prompt sample shows. Two intervals stand
side by side here:

- `t`: Student's interval over the per-seed values (df = seeds - 1). Honest from two seeds on.
- `bootstrap`: seeds and prompts resampled together (prompts are crossed with seeds: every seed
  answers the same prompts, so a draw takes one set of prompts for all its seeds). It adds the
  uncertainty of the prompt sample, and is known to be too narrow under about eight seeds.

A difference is claimed only where both exclude zero and its p-value, adjusted by Holm among all
contrasts that are tested together, is below 0.05 (`claims`). Without the adjustment a study of
three contrasts with no true effect claims something in one case of eight, with it in one of twenty.
One seed is exploratory and claims nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.ablation.metrics import metric as metric_of

CONFIDENCE = 0.95
BOOTSTRAP_DRAWS = 10_000
ALPHA = 1 - CONFIDENCE
"""Share of studies without a true effect that may claim one."""


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95% limits; limits are NaN where they cannot be had."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero; False for NaN limits."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Contrast:
    """arm_a - arm_b, paired by seed and prompt."""

    difference: float
    t: Interval
    bootstrap: Interval
    p_value: float
    per_seed: tuple[float, ...]

    def excludes_zero(self) -> bool:
        """Whether both intervals exclude zero."""
        return self.t.excludes_zero() and self.bootstrap.excludes_zero()


@dataclass(frozen=True)
class Claim:
    """Whether a difference may be claimed among those that were tested with it."""

    claimed: bool
    p_holm: float
    tested: int
    """How many contrasts were tested together."""


def per_seed_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over prompts for each seed, `(S, P)` -> `(S,)`; NaN marks a value that is undefined."""
    with np.errstate(invalid="ignore"):
        counts = np.sum(~np.isnan(values), axis=1)
        sums = np.nansum(values, axis=1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def t_interval(per_seed: NDArray[np.float64]) -> Interval:
    """Student's t interval over seeds, `(S,)`; NaN limits for fewer than two seeds."""
    from scipy import stats

    mean = float(np.mean(per_seed))
    count = len(per_seed)
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(per_seed)
    return Interval(mean, mean - float(half), mean + float(half))


def bootstrap_interval(
    values: NDArray[np.float64], seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """Percentile interval over seeds and prompts resampled together.

    Args:
        values: `(S, P)` metric of each seed and prompt, NaN where undefined.
        seed: of the resampling; the same input gives the same interval.

    Cost grows as draws x S x P.
    """
    seed_weights, prompt_weights = _resampling_weights(*values.shape, seed, draws)
    defined = (~np.isnan(values)).astype(float)
    totals = np.sum((seed_weights @ np.nan_to_num(values)) * prompt_weights, axis=1)
    counts = np.sum((seed_weights @ defined) * prompt_weights, axis=1)
    means = totals[counts > 0] / counts[counts > 0]
    mean = float(np.mean(per_seed_means(values)))
    if means.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high))


@lru_cache(maxsize=8)
def _resampling_weights(
    seeds: int, prompts: int, seed: int, draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each draw takes each seed `(draws, S)` and each prompt `(draws, P)`.

    Every metric of an ablation is resampled alike, so the weights are drawn once and kept.
    """
    rng = np.random.default_rng(seed)
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    prompt_weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), draws)
    return seed_weights.astype(float), prompt_weights.astype(float)


def paired_contrast(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
) -> Contrast:
    """Compare two arms on one metric.

    Args:
        a, b: `(S, P)` values of the same seeds and prompts in the same order; NaN = undefined.
            Only prompts defined in both arms enter, so that the pairs stay pairs.

    Raises:
        ValueError: the shapes differ.
    """
    from scipy import stats

    if a.shape != b.shape:
        raise ValueError(f"Arms must share seeds and prompts; got {a.shape} and {b.shape}.")
    differences = a - b
    per_seed = per_seed_means(differences)
    t = t_interval(per_seed)
    spread = float(np.ptp(per_seed)) if len(per_seed) > 1 else math.nan
    if len(per_seed) < 2:
        p_value = math.nan
    elif spread == 0:
        p_value = 1.0 if per_seed[0] == 0 else 0.0
    else:
        p_value = float(stats.ttest_1samp(per_seed, 0.0).pvalue)
    return Contrast(
        difference=t.mean,
        t=t,
        bootstrap=bootstrap_interval(differences, seed, draws),
        p_value=p_value,
        per_seed=tuple(float(value) for value in per_seed),
    )


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment over the contrasts that were declared; NaN stays NaN.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    order = sorted(
        (index for index, p in enumerate(p_values) if not math.isnan(p)),
        key=lambda index: p_values[index],
    )
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def claims(contrasts: Sequence[Contrast]) -> list[Claim]:
    """Which of the contrasts that are tested together may be claimed; see the module."""
    adjusted = holm([contrast.p_value for contrast in contrasts])
    return [
        Claim(contrast.excludes_zero() and p < ALPHA, p, len(contrasts))
        for contrast, p in zip(contrasts, adjusted, strict=True)
    ]


def verdict(
    arm_a: str, arm_b: str, metric: str, prompt_form: str, contrast: Contrast, claim: Claim
) -> str:
    """The contrast in words, claiming no more than `claim` does.

    "beats" is said only where more is better; units and digits are those of the metric's table.
    """
    known = metric_of(metric)
    where = f"on {prompt_form} prompts ({known.label})"
    size = f"{known.shown(contrast.difference, signed=True)}{known.suffix}"
    if len(contrast.per_seed) < 2:
        return f"Exploratory, one seed: {arm_a} minus {arm_b} {where} is {size}."
    low, high = known.within(contrast.t.low, contrast.t.high, difference=True)
    limits = known.limits(low, high)
    if not claim.claimed:
        # Both intervals may exclude zero here: then it is the number of contrasts that forbids it.
        why = f", p {claim.p_holm:.2g} among {claim.tested} contrasts"
        return (
            f"No difference of {arm_a} and {arm_b} {where} is shown: "
            f"{size} {limits}{why if contrast.excludes_zero() else ''}."
        )
    above = contrast.difference > 0
    if known.less_is_better:
        relation = "is above" if above else "is below"
    else:
        relation = "beats" if above else "falls behind"
    by = f"{known.shown(abs(contrast.difference))}{known.suffix}"
    return f"{arm_a} {relation} {arm_b} {where} by {by} {limits}."
