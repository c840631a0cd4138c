"""The variance account: what of a model's result comes from which seed, and what pairing saves.

A run has a seed of its weights, one of the order of its data and one of its training noise; its
pictures have a sampling noise. Where runs cross all levels of the first three, and all draw from
the same sampling noises, the analysis of variance tells the parts apart; interactions of the three
are the rest.

Intervals of a part are Williams' (1962, Biometrika 49, 278): exact quantiles of chi-squared and F
put together so that coverage is at least 1 - 2 alpha. With three levels they are wide, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipelines.statistics.interval import ALPHA, Floats


@dataclass(frozen=True)
class Part:
    """A component of the variance of a run's result, in the metric's squared unit.

    Attributes:
        low, high: 95% limits, never below 0; NaN where there is no freedom.
        share: of the sum of all parts.
        df: degrees of freedom of its mean square.
    """

    name: str
    variance: float
    low: float
    high: float
    share: float
    df: int


def account(values: Floats, names: Sequence[str] = ("weights", "order", "noise")) -> list[Part]:
    """The parts of `(A, B, C, N)` values: levels of three seeds, and N sampling noises.

    Each value is a mean over the same prompts. The parts are, of one value: each seed's own, "rest"
    (the seeds' interactions), "sampling" (a noise that serves all runs well or ill, and cancels
    between arms that share it) and "drawing" (pictures of one run drawn again, beyond that).

    Raises:
        ValueError: there is no freedom for a rest: fewer than two levels in two of the seeds; or a
            value is missing.
    """
    if values.ndim != 4 or np.isnan(values).any():
        raise ValueError("An account needs every run of the crossing, (A, B, C, N), without gaps.")
    noises, runs = values.shape[-1], values[..., 0].size
    cells = values.mean(-1)
    levels = dict(zip(names, cells.shape, strict=True))
    grand = cells.mean()
    squares, freedom = {}, {}
    for axis, name in enumerate(names):
        others = tuple(other for other in range(3) if other != axis)
        effects = cells.mean(others) - grand
        squares[name] = runs / levels[name] * float((effects**2).sum())
        freedom[name] = levels[name] - 1
    rest_df = runs - 1 - sum(freedom.values())
    if rest_df < 1:
        raise ValueError("An account needs two levels or more in at least two of the seeds.")
    total = float(((cells - grand) ** 2).sum())
    rest_square = max(0.0, total - sum(squares.values())) / rest_df
    parts = []
    for name in names:
        if freedom[name]:
            square, size = squares[name] / freedom[name], runs / levels[name]
            found = _above(square, freedom[name], rest_square, rest_df, size)
            parts.append((name, *found, freedom[name]))
    if noises > 1:
        common = values.mean((0, 1, 2)) - grand
        inner = values - cells[..., None] - common
        inner_df = (runs - 1) * (noises - 1)
        inner_square = float((inner**2).sum()) / inner_df
        # A run's mean holds its drawings' noise, divided by how often it drew.
        found = _above(rest_square * noises, rest_df, inner_square, inner_df, noises)
        parts.append(("rest", *found, rest_df))
        sampling = runs * float((common**2).sum()) / (noises - 1)
        found = _above(sampling, noises - 1, inner_square, inner_df, runs)
        parts.append(("sampling", *found, noises - 1))
        parts.append(("drawing", inner_square, *_alone(inner_square, inner_df), inner_df))
    else:
        parts.append(("rest", rest_square, *_alone(rest_square, rest_df), rest_df))
    whole = sum(part[1] for part in parts)
    return [
        Part(name, variance, low, high, variance / whole if whole else math.nan, df)
        for name, variance, low, high, df in parts
    ]


def crossing(rows: Iterable[tuple[int, int, int, int, float]]) -> Floats:
    """`(A, B, C, N)` for `account`, from rows of three seeds, sampling noise and value.

    Raises:
        ValueError: a run of the crossing is missing, or stands twice.
    """
    listed = list(rows)
    found: dict[tuple[int, ...], float] = {row[:4]: row[4] for row in listed}
    levels = [sorted({place[axis] for place in found}) for axis in range(4)]
    shape = tuple(len(names) for names in levels)
    if len(found) != len(listed) or len(found) != math.prod(shape):
        raise ValueError(f"Seeds and noises must be crossed: {shape} asks for each of them once.")
    return np.array([found[place] for place in product(*levels)], dtype=np.float64).reshape(shape)


def _above(
    square: float, df: int, rest: float, rest_df: int, size: float
) -> tuple[float, float, float]:
    """(square - rest) / size cut at 0, and Williams' limits."""
    from scipy.stats import chi2, f

    limits = []
    for level in (1 - ALPHA / 2, ALPHA / 2):
        above = square - rest * f.ppf(level, df, rest_df)
        limits.append(max(0.0, df * above / (size * chi2.ppf(level, df))))
    return max(0.0, (square - rest) / size), limits[0], limits[1]


def _alone(square: float, df: int) -> tuple[float, float]:
    """Limits of a mean square as a variance of its own."""
    from scipy.stats import chi2

    low, high = (df * square / chi2.ppf(level, df) for level in (1 - ALPHA / 2, ALPHA / 2))
    return float(low), float(high)


@dataclass(frozen=True)
class Saving:
    """What pairing by seed saves: variance of a - b paired, over that of unpaired arms.

    Attributes:
        ratio: below 1 where pairing helps; 0.5 halves the runs that a study needs.
        low, high: 95% limits.
    """

    ratio: float
    low: float
    high: float
    runs: int


def pairing(a: Floats, b: Floats) -> Saving:
    """The saving from `(R,)` results of two arms whose runs r share their seeds.

    Var(a - b) / (Var a + Var b) is 2 / (1 + Var(a + b) / Var(a - b)). Where both arms vary alike,
    sum and difference are independent and their ratio has the F distribution (Pitman and Morgan
    1939, Biometrika 31), which gives the limits.

    Raises:
        ValueError: fewer than two runs, or other runs in one arm.
    """
    from scipy.stats import f

    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"Pairing needs two runs or more of each arm; got {a.shape}, {b.shape}.")
    difference, total = float((a - b).var(ddof=1)), float((a + b).var(ddof=1))
    if not difference + total:
        return Saving(math.nan, math.nan, math.nan, len(a))
    df = len(a) - 1
    quantile = float(f.ppf(1 - ALPHA / 2, df, df))
    low, high = (
        2 * difference * factor / (difference * factor + total)
        for factor in (1 / quantile, quantile)
    )
    return Saving(2 * difference / (difference + total), low, high, len(a))
