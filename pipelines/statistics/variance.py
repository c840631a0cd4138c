"""The variance account: what of a model's result comes from which seed, and what pairing saves.

A run has a seed of its weights, one of the order of its data and one of its training noise; its
pictures have a sampling noise. Where runs cross levels of the first three evenly (a whole crossing,
or a Latin square), and all draw from the same sampling noises, the analysis of variance tells the
parts apart; interactions of the three are the rest. In a Latin square no two runs share two seeds,
so that all interactions of two count in the rest alike, and L levels cost L^2 runs instead of L^3.

Intervals of a part are Williams' (1962, Biometrika 49, 278): exact quantiles of chi-squared and F
put together so that coverage is at least 1 - 2 alpha. With five levels they are wide, and say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipelines.statistics.interval import ALPHA, Floats

Levels = NDArray[np.int64]
"""`(R, 3)`: the seeds of weights, order and noise of each run."""
NAMES = ("weights", "order", "noise")


@dataclass(frozen=True)
class Part:
    """A component of the variance of a run's result, in the metric's squared unit.

    Attributes:
        low, high: 95% limits, never below 0.
        share: of the sum of all parts.
        df: degrees of freedom of its mean square.
    """

    name: str
    variance: float
    low: float
    high: float
    share: float
    df: int


def latin_square(levels: int) -> Levels:
    """`(levels**2, 3)`: every two seeds meet once, whichever of the three they are of."""
    first, second = np.indices((levels, levels)).reshape(2, -1)
    return np.stack([first, second, (first + second) % levels], 1)


def account(levels: Levels, values: Floats) -> list[Part]:
    """The parts of `(R, N)` values of R runs and N sampling noises.

    Each value is a mean over the same prompts. The parts are, of one value: each seed's own, "rest"
    (the seeds' interactions), "sampling" (a noise that serves all runs well or ill, and cancels
    between arms that share it) and "drawing" (pictures of one run drawn again, beyond that).

    Raises:
        ValueError: the seeds do not meet evenly, there is no freedom for a rest, or a value is
            missing.
    """
    if values.ndim != 2 or len(values) != len(levels) or np.isnan(values).any():
        raise ValueError("An account needs a value of every run and noise, (R, N), without gaps.")
    squares = _squares(levels, values.mean(1))
    runs, noises = values.shape
    parts = [
        (own.name, *_above(own.square, own.df, squares[-1].square, squares[-1].df, own.size))
        for own in squares[:-1]
    ]
    freedom = [own.df for own in squares]
    rest = squares[-1]
    if noises > 1:
        common = values.mean(0) - values.mean()
        inner = values - values.mean(1, keepdims=True) - common
        inner_df = (runs - 1) * (noises - 1)
        inner_square = float((inner**2).sum()) / inner_df
        # A run's mean holds its drawings' noise, divided by how often it drew.
        parts.append(
            ("rest", *_above(rest.square * noises, rest.df, inner_square, inner_df, noises))
        )
        sampling = runs * float((common**2).sum()) / (noises - 1)
        parts.append(("sampling", *_above(sampling, noises - 1, inner_square, inner_df, runs)))
        parts.append(("drawing", inner_square, *_alone(inner_square, inner_df)))
        freedom += [noises - 1, inner_df]
    else:
        parts.append(("rest", rest.square, *_alone(rest.square, rest.df)))
    whole = sum(part[1] for part in parts)
    return [
        Part(name, variance, low, high, variance / whole if whole else math.nan, df)
        for (name, variance, low, high), df in zip(parts, freedom, strict=True)
    ]


@dataclass(frozen=True)
class _Square:
    """A mean square; `size` runs share a level."""

    name: str
    square: float
    df: int
    size: float


def _squares(levels: Levels, results: Floats) -> list[_Square]:
    """Mean squares of each seed with two levels or more, and of the rest behind them.

    Raises:
        ValueError: as `account`.
    """
    runs, away = len(results), results - results.mean()
    _refuse_uneven(levels)
    found = []
    for axis, name in enumerate(NAMES):
        index = np.unique(levels[:, axis], return_inverse=True)[1]
        count = int(index.max()) + 1
        if count > 1:
            means = np.bincount(index, away) * count / runs
            df, size = count - 1, runs / count
            found.append(_Square(name, size * float((means**2).sum()) / df, df, size))
    df = runs - 1 - sum(own.df for own in found)
    if df < 1:
        raise ValueError("An account needs more runs than levels of its seeds: no rest is left.")
    rest = float((away**2).sum()) - sum(own.square * own.df for own in found)
    return [*found, _Square("rest", max(0.0, rest) / df, df, 1.0)]


def _refuse_uneven(levels: Levels) -> None:
    """
    Raises:
        ValueError: two seeds meet in more runs than two others.
    """
    counts = [len(np.unique(own)) for own in levels.T]
    for one, other in combinations(range(len(NAMES)), 2):
        met = np.unique(levels[:, (one, other)], axis=0, return_counts=True)[1]
        if len(met) != counts[one] * counts[other] or len(set(met.tolist())) > 1:
            raise ValueError("Seeds must meet evenly: every two of them in equally many runs.")


def _above(
    square: float, df: int, rest: float, rest_df: int, size: float
) -> tuple[float, float, float]:
    """(square - rest) / size cut at 0, and Williams' limits."""
    from scipy.special import fdtri, gammaincinv

    limits = []
    for level in (1 - ALPHA / 2, ALPHA / 2):
        above = square - rest * fdtri(df, rest_df, level)
        limits.append(max(0.0, float(df * above / (size * 2 * gammaincinv(df / 2, level)))))
    return max(0.0, (square - rest) / size), limits[0], limits[1]


def _alone(square: float, df: int) -> tuple[float, float]:
    """Limits of a mean square as a variance of its own."""
    from scipy.special import gammaincinv

    low, high = (
        df * square / (2 * gammaincinv(df / 2, level)) for level in (1 - ALPHA / 2, ALPHA / 2)
    )
    return float(low), float(high)


@dataclass(frozen=True)
class Saving:
    """What pairing by seed saves: variance of a - b unpaired, over that of paired arms.

    Attributes:
        ratio: above 1 where pairing helps; 2 halves the runs that a study needs.
        low, high: 95% limits.
    """

    ratio: float
    low: float
    high: float
    runs: int


def pairing(levels: Levels, a: Floats, b: Floats) -> Saving:
    """The saving from `(R,)` results of two arms whose runs share their seeds, of new seeds each.

    (Var a + Var b) / Var(a - b) is (1 + Var(a + b) / Var(a - b)) / 2. Where both arms vary alike,
    sum and difference are independent and the ratio of their mean squares has the F distribution
    (Pitman and Morgan 1939, Biometrika 31). Runs that share a seed are no sample of their own, so
    each variance is put together from its mean squares, and the half-widths that F gives on the
    logarithm are added in squares by their weights, as Banerjee's interval adds its parts': exact
    where one seed is all, wider elsewhere.

    Raises:
        ValueError: arms of other runs, or as `account`.
    """
    from scipy.special import fdtri

    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"Pairing needs the same runs of each arm; got {a.shape}, {b.shape}.")
    difference, total = _variance(levels, a - b), _variance(levels, a + b)
    paired, summed = sum(difference.values()), sum(total.values())
    if not paired or not summed:
        return Saving(math.nan, math.nan, math.nan, len(a))
    squares = [
        ((part / paired) ** 2 + (total[name, df] / summed) ** 2)
        / 2
        * math.log(fdtri(df, df, 1 - ALPHA / 2)) ** 2
        for (name, df), part in difference.items()
    ]
    ratio, half = summed / paired, math.exp(math.sqrt(sum(squares)))
    return Saving((1 + ratio) / 2, (1 + ratio / half) / 2, (1 + ratio * half) / 2, len(a))


def _variance(levels: Levels, results: Floats) -> dict[tuple[str, int], float]:
    """Variance of the result of a run of new seeds, by the mean square and its freedom."""
    squares = _squares(levels, results)
    shares = [1 / own.size for own in squares[:-1]]
    shares.append(max(0.0, 1 - sum(shares)))
    return {
        (own.name, own.df): share * own.square for share, own in zip(shares, squares, strict=True)
    }
