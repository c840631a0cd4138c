"""No downside, and no difference, against a margin that was declared: what no test of zero shows.

Source: Schuirmann (1987), two one-sided tests, J. Pharmacokin. Biopharm. 15. The margin must be
said before the run; one that is chosen afterwards shows what it was chosen to show.

Each p-value is twice the one-sided one, so that p < .05 and "the 95% interval lies inside the
margin" are the same statement (as trials of non-inferiority do: one-sided at 2.5%).
"""

from __future__ import annotations

import numpy as np

from pipelines.statistics.interval import Estimate


def not_worse(difference: Estimate, margin: float, less_is_better: bool = False) -> float:
    """p-value of "worse by `margin` or more", for a difference arm - than.

    NaN where the difference has no interval.
    """
    p = difference.p_below(margin) if less_is_better else difference.p_above(-margin)
    # NaN goes through numpy's minimum and not through Python's.
    return float(np.minimum(1.0, 2 * p))


def equivalent(difference: Estimate, margin: float) -> float:
    """p-value of "apart by `margin` or more" in either direction (TOST); NaN as above."""
    both = np.maximum(difference.p_above(-margin), difference.p_below(margin))
    return float(np.minimum(1.0, 2 * both))
