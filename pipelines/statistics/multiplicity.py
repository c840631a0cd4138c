"""Several tests at once: which of them may be claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.statistics.interval import ALPHA


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment over all tests that were declared.

    A test without a p-value (NaN) stays without one, and counts: it was declared, and a family that
    shrinks with what happens to be undefined keeps no promise.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Stat. 6.
    """
    family = len(p_values)
    order = sorted(
        (index for index, p in enumerate(p_values) if not math.isnan(p)),
        key=lambda index: p_values[index],
    )
    adjusted = [math.nan] * family
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (family - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def claimed(p_holm: float) -> bool:
    """Whether a declared test may be claimed; False for NaN."""
    return p_holm < ALPHA
