"""Percentile bootstrap over pictures: how far a measure of these captions moves with the sample.

The picture is the unit: whatever several captions of one picture say enters or leaves together. An
interval tells what another sample of such pictures would have given for the same captions. It knows
nothing of the captioner's training or decoding, which another run would draw anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 2000
# Draws whose weights are in memory at once.
_CHUNK = 50

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% limits; nan where it is undefined or one picture is all there is.

    `pictures` is how many entered.
    """

    value: float
    low: float
    high: float
    pictures: int = 0


NOT_MEASURED = Estimate(float("nan"), float("nan"), float("nan"))


def ratio(numerator: Column, denominator: Column, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Sum over sum, as precision and recall are pooled over pictures.

    Args:
        numerator, denominator: (N,) one value >= 0 a picture, the numerator no larger; a nan
            leaves the picture out.
    """
    known = ~(np.isnan(numerator) | np.isnan(denominator))
    columns = np.stack([numerator[known], denominator[known]])
    (above, below), sums = columns.sum(1), _resampled(columns, draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = _estimate(float(above / below), sums[0] / sums[1], int(known.sum()))
    told = int((columns[1] > 0).sum())
    if told > 1 and (above == 0 or (columns[0] == columns[1]).all()):
        # Without a single exception every draw is the same; the exact limit for `told` pictures of
        # which none is one (Clopper and Pearson) takes the place of no width at all.
        room = 1 - ((1 - CONFIDENCE) / 2) ** (1 / told)
        low, high = (0.0, room) if above == 0 else (1 - room, 1.0)
        return Estimate(found.value, low, high, found.pictures)
    return found


def mean(values: Column, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean of (N,) values, one a picture; nan leaves a picture out."""
    known = values[~np.isnan(values)]
    sums = _resampled(known[None], draws, seed)[0]
    return _estimate(
        float(known.mean()) if len(known) else float("nan"), sums / max(len(known), 1), len(known)
    )


def ratio_difference(
    a: tuple[Column, Column], b: tuple[Column, Column], draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Ratio of `a` minus ratio of `b`, each (numerator, denominator) of the same N pictures.

    Every draw takes the same pictures for both, so what makes a picture hard for both falls out.
    """
    stacked = np.stack([*a, *b])
    known = ~np.isnan(stacked).any(0)
    columns = stacked[:, known]
    whole, sums = columns.sum(1), _resampled(columns, draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = whole[0] / whole[1] - whole[2] / whole[3]
        moved = sums[0] / sums[1] - sums[2] / sums[3]
    return _estimate(float(value), moved, int(known.sum()))


def mean_difference(a: Column, b: Column, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of `a - b` over the pictures for which both are known."""
    return mean(a - b, draws, seed)


def _resampled(columns: Column, draws: int, seed: int) -> Column:
    """Sums of each of (K, N) columns over N pictures drawn with replacement: (K, draws)."""
    count = columns.shape[1]
    if count < 2:
        return np.full((len(columns), 1), np.nan)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, draws, _CHUNK):
        some = min(_CHUNK, draws - start)
        picks = rng.integers(0, count, (some, count))
        picks += np.arange(some)[:, None] * count
        weights = np.bincount(picks.ravel(), minlength=some * count).reshape(some, count)
        parts.append(columns @ weights.T)
    return np.concatenate(parts, axis=1)


def _estimate(value: float, draws: Column, pictures: int) -> Estimate:
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value):
        return Estimate(float("nan"), float("nan"), float("nan"), pictures)
    if len(known) < 2:
        return Estimate(value, float("nan"), float("nan"), pictures)
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), pictures)
