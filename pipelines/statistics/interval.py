"""One interval everywhere: seeds and prompts are both samples, and every seed answers all prompts.

A value of seed s and prompt cluster c is mean + seed effect + cluster effect + their interaction
(random effects, crossed; prompts of one text or intent are one cluster). The grand mean's variance
is then a sum of two parts, here by the mean squares of that analysis of variance (Searle, Casella
and McCulloch 1992, Variance Components, 4.3):

    seed part    MS_seed / SC                        what per-seed means scatter, interaction too
    prompt part  max(0, MS_cluster - MS_residual) / SC

and its limits are those of Banerjee (1960, Sankhya 22, Approximate confidence interval for linear
functions of means of k populations): half-width^2 = sum of t^2(df_i) x part_i, with S - 1 and C - 1
degrees of freedom. Its coverage is at least the nominal one whatever the parts' ratio. Arms of
other seeds have a seed part each. A quantile
of Welch-Satterthwaite's pooled degrees of freedom is narrower and is not taken: with three seeds
its error reaches 7.7% instead of 5% where seeds make up nine tenths of the variance
(docs/bench-ablation.md). The p-value is the level at which the interval touches zero, so that the
two always agree.

Choices at the edges, all of them so that nothing is claimed out of nothing:

- One seed: no interval and no p-value.
- No variance at all (every seed and prompt gives the same number): no interval and no p-value,
  also where that number is not zero. What does not vary says nothing of how it would vary.
- Seeds agree to the last digit though their pictures do not, as counts do: the residual stands for
  the seed part.
- Shares end at 0 and 1; see `Bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
"""Share of studies without a true effect that may claim one."""

Bounds = Literal["none", "share", "difference of shares"]
"""Where limits must end. `share`: limits of the log-odds, by the delta method, turned back, so that
they lie inside (0, 1) and are wider towards the middle (`_share_limits`). `difference of shares`:
cut at -1 and 1."""

# Below this share of the largest value a standard error is rounding and no variance.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and prompts with its 95% limits; NaN where there is none.

    Attributes:
        p_value: two-sided, of a mean of zero.
        standard_error: of all parts together.
        per_seed: mean over the prompts of each seed; empty where the arms share no seeds.
        spread: the parts of the variance, for other levels and other values to test against.
    """

    mean: float
    low: float
    high: float
    p_value: float
    standard_error: float
    seeds: int
    clusters: int
    per_seed: tuple[float, ...]
    spread: Spread

    @property
    def defined(self) -> bool:
        """Whether every seed has a value."""
        return not math.isnan(self.mean)

    @property
    def has_interval(self) -> bool:
        """Whether there are limits: two seeds or more, and some variance."""
        return not math.isnan(self.p_value)

    def p_above(self, value: float) -> float:
        """One-sided p-value of "the mean is at most `value`"; small where it lies above."""
        if not self.has_interval:
            return math.nan
        two_sided = float(self.spread.p_value(value))
        return two_sided / 2 if self.mean > value else 1 - two_sided / 2

    def p_below(self, value: float) -> float:
        """One-sided p-value of "the mean is at least `value`"; small where it lies below."""
        return 1 - self.p_above(value)

    def half_width(self, level: float = ALPHA) -> float:
        """Half of the plain interval of confidence 1 - level."""
        return float(self.spread.half_width(level)) if self.has_interval else math.nan


@dataclass(frozen=True)
class Spread:
    """Means, of one study or of many at once, and the parts of their variance; each `(...)`.

    Attributes:
        seed: variance of the mean over seeds, with `seed_df`; NaN for one seed.
        prompt: variance of the mean over prompts, with `prompt_df`.
        other: variance over the seeds of the other arm, with `other_df`, where arms share none.
    """

    mean: Floats
    seed: Floats
    prompt: Floats
    seed_df: Floats
    prompt_df: float
    other: Floats | float = 0.0
    other_df: Floats | float = 1.0

    @property
    def variance(self) -> Floats:
        """Of the mean."""
        return np.asarray(self.seed + self.prompt + self.other)

    @property
    def parts(self) -> list[tuple[Floats | float, Floats | float]]:
        """Variance and degrees of freedom of each part that is not zero everywhere."""
        others = [(self.prompt, self.prompt_df), (self.other, self.other_df)]
        there = [(own, df) for own, df in others if np.any(np.asarray(own) != 0)]
        return [(self.seed, self.seed_df), *there]

    def half_width(self, level: float | Floats = ALPHA) -> Floats:
        """Half of the plain interval of confidence 1 - level, Banerjee (1960)."""
        from scipy.special import stdtrit

        upper = 1 - np.asarray(level) / 2
        squares = [stdtrit(df, upper) ** 2 * variance for variance, df in self.parts]
        return np.asarray(np.sqrt(sum(squares)))

    def p_value(self, against: float | Floats = 0.0) -> Floats:
        """The level at which the interval touches `against`, two-sided; NaN without variance."""
        from scipy.special import stdtr

        distance, variance = np.abs(self.mean - against), self.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(variance > 0, distance / np.sqrt(variance), np.nan)
        # The level lies between those of the parts' degrees of freedom: halve that bracket.
        levels = [2 * stdtr(df, -t) for _, df in self.parts]
        if len(levels) == 1:
            return np.asarray(levels[0])
        least, most = np.min(levels, 0), np.max(levels, 0)
        for _ in range(40):
            middle = (least + most) / 2
            beyond = self.half_width(middle) < distance
            least, most = np.where(beyond, least, middle), np.where(beyond, middle, most)
        return np.asarray((least + most) / 2)


@dataclass(frozen=True)
class Crossed:
    """The analysis of variance of seeds by clusters.

    Attributes:
        per_seed: `(..., S)` means.
        per_cluster: `(..., C)` deviations from the mean, of the mean of all seeds.
        residual: `(...)` what the residual adds to the variance of the mean; NaN for one seed.
    """

    spread: Spread
    per_seed: Floats
    per_cluster: Floats
    residual: Floats


def crossed(values: Floats, clusters: Sequence[Any] | NDArray[Any] | None = None) -> Crossed:
    """Analyse `(..., S, P)` values of S seeds and P prompts, many studies at once.

    Args:
        values: NaN = undefined, possibly in some seeds only. Every seed weighs the same, and in a
            seed every prompt that is defined.
        clusters: `(P,)` what prompts share; without, each is its own. Clusters may differ in size:
            what is analysed are their sums of deviations from the mean (linearised ratio, Cochran
            1977, Sampling Techniques, 6.4), which for clusters of one size are their means.

    The mean is NaN where a seed has no value.
    """
    per_seed, cells = linearised(values, None if clusters is None else membership(clusters))
    return analysed(per_seed, cells, np.nanmax(np.abs(values), (-2, -1), initial=0.0))


def linearised(values: Floats, belongs: Floats | None) -> tuple[Floats, Floats]:
    """Per-seed means `(..., S)`, and cells `(..., S, C)` that average to their deviations.

    Args:
        belongs: `(P, C)` of `membership`; None: each prompt is a cluster.
    """
    defined = ~np.isnan(values)
    counts = defined.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_seed = np.where(defined, values, 0.0).sum(-1) / np.where(counts > 0, counts, np.nan)
    cells = np.where(defined, values - per_seed.mean(-1)[..., None, None], 0.0)
    if belongs is not None:
        cells = cells @ belongs
    return per_seed, cells * (cells.shape[-1] / np.where(counts > 0, counts, 1))[..., None]


def analysed(per_seed: Floats, cells: Floats, largest: Floats) -> Crossed:
    """The analysis of variance of what `linearised` returns.

    Args:
        largest: `(...)` magnitude of the values; far below it, variance is rounding.
    """
    mean = per_seed.mean(-1)
    S, C = cells.shape[-2:]
    rows, columns = per_seed - mean[..., None], cells.mean(-2)
    if S < 2:
        nothing = np.full(mean.shape, np.nan)
        return Crossed(Spread(mean, nothing, nothing, nothing, 1.0), per_seed, columns, nothing)
    seed = (rows**2).sum(-1) / ((S - 1) * S)
    scale = (_ROUNDING * largest) ** 2
    prompt = residual = np.zeros(mean.shape)
    if C > 1:
        rest = cells - rows[..., None] - columns[..., None, :]
        residual = (rest**2).sum((-2, -1)) / ((S - 1) * (C - 1)) / (S * C)
        prompt = np.maximum((columns**2).sum(-1) / ((C - 1) * C) - residual, 0.0)
        seed = np.where(seed > scale, seed, residual)
    none = seed + prompt <= scale
    seed, prompt = np.where(none, 0.0, seed), np.where(none, 0.0, prompt)
    df = np.full(mean.shape, float(S - 1))
    return Crossed(Spread(mean, seed, prompt, df, max(C - 1, 1)), per_seed, columns, residual)


def _taken(
    clusters: Sequence[Any] | NDArray[Any] | None, used: NDArray[np.bool_]
) -> NDArray[Any] | None:
    return None if clusters is None else np.asarray(clusters)[used]


def membership(clusters: Sequence[Any] | NDArray[Any]) -> Floats:
    """`(P, C)`: 1 where a prompt belongs to a cluster."""
    named, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.asarray(np.eye(len(named))[index])


def estimate(
    values: Floats,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    bounds: Bounds = "none",
) -> Estimate:
    """Mean of `(S, P)` values of S seeds and P prompts with the interval of this module.

    Noises of a prompt are averaged before. NaN = undefined: a prompt may be undefined in some
    seeds; where a whole seed is, there is no estimate (its mean is NaN).
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"Values are (seeds, prompts); got {values.shape}.")
    used = np.asarray(~np.isnan(values).all(0))
    if used.any():
        values, clusters = values[:, used], _taken(clusters, used)
    return finished(crossed(values, clusters), bounds)


def paired(
    a: Floats,
    b: Floats,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    bounds: Bounds = "none",
) -> Estimate:
    """a - b of the same seeds and prompts, `(S, P)` each; what is undefined in one leaves both.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"Arms must share seeds and prompts; got {a.shape} and {b.shape}.")
    return estimate(a - b, clusters, bounds)


def unpaired(
    a: Floats,
    b: Floats,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    bounds: Bounds = "none",
) -> Estimate:
    """a - b of arms of other seeds, `(S, P)` and `(T, P)`, that drew the same prompts.

    Each arm has a seed part with degrees of freedom of its own (Welch's pooled ones claim 6%
    instead of 5 where one arm has three seeds and the other eight); the prompt part is that of the
    difference of their prompts' means.

    Raises:
        ValueError: the numbers of prompts differ.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"Arms must share prompts; got {a.shape} and {b.shape}.")
    used = np.asarray(~(np.isnan(a).all(0) | np.isnan(b).all(0)))
    if used.any():
        a, b, clusters = a[:, used], b[:, used], _taken(clusters, used)
    one, other = crossed(a, clusters), crossed(b, clusters)
    columns = one.per_cluster - other.per_cluster
    C = columns.shape[-1]
    between = (columns**2).sum(-1) / (max(C - 1, 1) * C)
    prompt = np.maximum(between - one.residual - other.residual, 0.0)
    spread = Spread(
        one.spread.mean - other.spread.mean,
        one.spread.seed,
        prompt,
        one.spread.seed_df,
        one.spread.prompt_df,
        other.spread.seed,
        other.spread.seed_df,
    )
    made = Crossed(spread, np.empty(0), columns, one.residual + other.residual)
    return finished(made, bounds, seeds=min(len(a), len(b)))


def finished(made: Crossed, bounds: Bounds = "none", seeds: int | None = None) -> Estimate:
    """One study's analysis as an Estimate, with limits inside `bounds`."""
    spread = made.spread
    p_value = float(spread.p_value())
    low, high = limits(spread, bounds) if not math.isnan(p_value) else (math.nan, math.nan)
    return Estimate(
        mean=float(spread.mean),
        low=float(low),
        high=float(high),
        p_value=p_value,
        standard_error=math.sqrt(spread.variance),
        seeds=made.per_seed.shape[-1] if seeds is None else seeds,
        clusters=made.per_cluster.shape[-1],
        per_seed=tuple(map(float, made.per_seed)),
        spread=spread,
    )


def limits(spread: Spread, bounds: Bounds) -> tuple[Floats, Floats]:
    """95% limits inside `bounds`; see `Bounds`."""
    if bounds == "share":
        return _share_limits(spread)
    half = spread.half_width()
    low, high = spread.mean - half, spread.mean + half
    if bounds == "difference of shares":
        return np.maximum(low, -1.0), np.minimum(high, 1.0)
    return low, high


def _share_limits(spread: Spread) -> tuple[Floats, Floats]:
    """Limits of the log-odds, turned back.

    Shares of seeds that scatter widely are skewed: their variance rises with their mean, so that a
    study which finds too small a share finds too small a variance. If the odds are log-normal, the
    log of their mean is m + s^2/2, whose estimate has variance s^2/S + s^4 / 2(S - 1); the second
    part is added to the seeds' (Cox's method: Land 1972, Technometrics 14; Zhou and Gao 1997,
    Statistics in Medicine 16). s^2 is log(1 + the squared coefficient of variation).
    """
    from scipy.special import expit, logit

    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (spread.mean * (1 - spread.mean)) ** 2
        seed, prompt = spread.seed / scale, spread.prompt / scale
        skew = np.log1p((spread.seed_df + 1) * seed) ** 2 / (2 * spread.seed_df)
        odds = Spread(
            np.asarray(logit(spread.mean)), seed + skew, prompt, spread.seed_df, spread.prompt_df
        )
        half = odds.half_width()
        return np.asarray(expit(odds.mean - half)), np.asarray(expit(odds.mean + half))
