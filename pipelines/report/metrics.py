"""An ablation's metrics as the report writes them; what they are stands in `ablation.metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipelines.ablation.metrics import metric, ordered
from pipelines.report import text

__all__ = ["interval", "label", "limits", "metric", "ordered", "value"]


def label(name: str) -> str:
    """The metric's name in words."""
    return metric(name).label


def value(
    name: str,
    amount: float | None,
    signed: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> str:
    """A value in the metric's unit: shares in percent (differences in points), others plain.

    With the digits that the interval from `low` to `high` allows, where it has one.
    """
    known = metric(name)
    if amount is None or not math.isfinite(amount):
        return text.MISSING
    digits = known.digits if low is None or high is None else known.digits_for(low, high)
    if known.unit == "share" and not signed:
        return text.percent(amount, digits)
    return known.shown(amount, signed, digits).replace("-", text.MINUS)


def interval(name: str, low: float | None, high: float | None, signed: bool = False) -> str:
    """The limits of an interval in the metric's unit; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return metric(name).limits(low, high, signed).replace("-", text.MINUS)


def limits(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The interval of a row of arms.parquet or contrasts.parquet; None where it has none."""
    ends = [
        end if end is not None and math.isfinite(end) else None for end in (row["low"], row["high"])
    ]
    return ends[0], ends[1]
