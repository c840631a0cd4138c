"""The columns of a study's tables, OUT/results/*.parquet.

Values are stored in the metric's own unit (a share is 0 to 1) and are null where there are none.
Limits are those of the 95% interval of `pipelines.statistics.interval`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


def _strings(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


def _numbers(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.float64()) for name in names]


def _counts(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.int64()) for name in names]


def _flags(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.bool_()) for name in names]


def _lists(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.list_(pa.float64())) for name in names]


DESCRIBING = pa.schema(
    [
        *_strings("arm"),
        *_counts("seed"),
        *_strings("prompt_id", "form", "wording", "intent_id", "category"),
        *_flags("held_out"),
        *_counts("noise"),
        *_strings("picture_id", "prompt"),
    ]
)
"""images.parquet, one row a picture; a float64 column a metric follows, NaN = does not apply."""

SETS = pa.schema(
    [
        *_strings("arm"),
        *_counts("seed"),
        *_strings("form", "wording", "metric"),
        *_numbers("value", "floor"),
        *_counts("pictures"),
    ]
)
"""sets.parquet, one row a metric of a whole set of pictures."""

ARMS = pa.schema(
    [
        *_strings("arm", "form", "wording", "group", "metric"),
        *_numbers("mean", "low", "high"),
        *_counts("seeds", "prompts"),
        *_lists("per_seed"),
    ]
)
"""wording "all" pools wordings; group is "all", "seen", "held_out" or "category:NAME". A set's
metric has no prompts: `prompts` is 0."""

CONTRASTS = pa.schema(
    [
        *_strings("arm_a", "arm_b", "form", "wording", "group", "metric"),
        *_numbers("difference", "low", "high", "p_value", "p_holm"),
        *_flags("declared", "claimed", "paired"),
        *_counts("seeds", "prompts"),
        *_lists("per_seed"),
        *_strings("verdict"),
    ]
)
"""arm_a - arm_b. `p_holm` is null in exploratory rows, which claim nothing. `paired`: the arms
share their seeds; `per_seed` are differences then, and empty otherwise."""

EQUIVALENCE = pa.schema(
    [
        *_strings("arm", "than", "form", "wording", "metric"),
        *_numbers("margin", "difference", "low", "high", "p_value", "p_holm"),
        *_flags("claimed"),
        *_strings("verdict"),
    ]
)
"""`difference` = arm - than; claimed: arm is worse by less than the margin."""

INTERACTIONS = pa.schema(
    [
        *_strings("arm_a", "arm_b", "form_a", "form_b", "metric"),
        *_numbers("difference", "low", "high", "p_value", "p_holm"),
        *_flags("declared", "claimed"),
        *_strings("verdict"),
    ]
)
"""`difference` = (arm_a - arm_b on form_a) - (arm_a - arm_b on form_b)."""

TRENDS = pa.schema(
    [
        *_strings("sweep", "form", "wording", "metric"),
        *_numbers("slope", "low", "high", "p_value", "p_holm"),
        *_flags("declared", "claimed"),
        *_strings("verdict"),
        *_lists("doses", "means"),
    ]
)
"""`slope`: change of the metric for ten points of dose."""

SCHEMAS = {
    "arms": ARMS,
    "contrasts": CONTRASTS,
    "equivalence": EQUIVALENCE,
    "interactions": INTERACTIONS,
    "trends": TRENDS,
}
"""Name of the table -> its columns."""


def metric_names(columns: Iterable[str]) -> list[str]:
    """The metric columns among those of images.parquet."""
    return [name for name in columns if name not in DESCRIBING.names]
