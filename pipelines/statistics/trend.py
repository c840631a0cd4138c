"""Does it rise with the dose? A slope for each seed and prompt, and a test of the order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.statistics.interval import Estimate, Floats, estimate


def slope(
    values: Floats, doses: Sequence[float], clusters: Sequence[Any] | NDArray[Any] | None = None
) -> Estimate:
    """Least-squares slope over doses, with the one interval.

    Args:
        values: `(D, S, P)` of D doses, S seeds and P prompts, the same in every dose; what is
            undefined in one dose leaves all.
        doses: `(D,)`.

    The slope is a sum over doses with fixed weights, so that it is a value of each seed and prompt
    as any other, and doses that share seeds and prompts are paired.
    """
    away = np.asarray(doses, float) - np.mean(doses)
    return estimate(np.tensordot(away / np.sum(away**2), values, axes=1), clusters)


def ordered(per_seed: Floats) -> float:
    """p-value of Page's test that means rise, or fall, with every dose, `(S, D)` doses ascending.

    The better of both directions, doubled. Seeds alone are its sample. NaN for one seed or for
    fewer than three doses.

    Source: Page (1963), Ordered Hypotheses for Multiple Treatments, JASA 58; scipy's.
    """
    from scipy.stats import page_trend_test

    seeds, doses = per_seed.shape
    if seeds < 2 or doses < 3 or np.isnan(per_seed).any():
        return float("nan")
    ways = [page_trend_test(sign * per_seed).pvalue for sign in (1, -1)]
    return min(1.0, 2 * float(min(ways)))
