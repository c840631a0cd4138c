"""Measures as JSON: dataclasses as objects, sets by their names, nan as null."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from recaption.judging.caption_sets import CaptionSet
from recaption.judging.counts import Distribution


def plain(value: Any) -> Any:
    """`value` in what JSON knows; a distribution becomes its mean and quantiles."""
    if isinstance(value, CaptionSet):
        return value.name
    if isinstance(value, Distribution):
        quantiles = {f"p{100 * q:g}": plain(value.quantile(q)) for q in (0.05, 0.25, 0.5, 0.75)}
        last = {"p95": plain(value.quantile(0.95))}
        return {"total": value.total, "mean": plain(value.mean), **quantiles, **last}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
