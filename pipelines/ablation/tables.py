"""From per-image results to the tables of an ablation: arms, contrasts, and words for both.

Everything here is recomputable from results/images.parquet alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.ablation.statistics import (
    bootstrap_interval,
    holm,
    paired_contrast,
    per_seed_means,
    t_interval,
    verdict,
)

# Columns of images.parquet that are not metrics.
DESCRIBING = (
    "arm",
    "seed",
    "prompt_form",
    "prompt_index",
    "prompt",
    "scene",
    "png",
    "target_png",
)


@dataclass(frozen=True)
class Values:
    """One metric of one arm and prompt form: `(S, P)`, seeds by prompts, NaN = undefined."""

    arm: str
    prompt_form: str
    metric: str
    matrix: NDArray[np.float64]


def metric_names(images: pa.Table) -> list[str]:
    """The metric columns of images.parquet."""
    return [name for name in images.column_names if name not in DESCRIBING]


def value_matrices(images: pa.Table, seeds: Sequence[int]) -> list[Values]:
    """Split images.parquet into `(S, P)` matrices, prompts in the order of their index."""
    metrics = metric_names(images)
    frame = images.select(["arm", "seed", "prompt_form", "prompt_index", *metrics])
    frame = frame.sort_by(
        [(name, "ascending") for name in ("arm", "prompt_form", "seed", "prompt_index")]
    )
    arm = np.array(frame.column("arm").to_pylist())
    form = np.array(frame.column("prompt_form").to_pylist())
    matrices = []
    for arm_name in dict.fromkeys(arm.tolist()):
        for form_name in dict.fromkeys(form.tolist()):
            rows = np.flatnonzero((arm == arm_name) & (form == form_name))
            for metric in metrics:
                column = frame.column(metric).take(pa.array(rows))
                values = column.to_pandas().to_numpy(dtype=float).reshape(len(seeds), -1)
                matrices.append(Values(arm_name, form_name, metric, values))
    return matrices


def arms_table(matrices: Sequence[Values]) -> pa.Table:
    """arms.parquet: mean of each arm, form and metric with its interval over seeds and prompts."""
    rows: list[dict[str, Any]] = []
    for values in matrices:
        if np.isnan(values.matrix).all():
            continue
        per_seed = per_seed_means(values.matrix)
        interval = bootstrap_interval(values.matrix)
        t = t_interval(per_seed)
        rows.append(
            {
                "arm": values.arm,
                "prompt_form": values.prompt_form,
                "metric": values.metric,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "t_low": t.low,
                "t_high": t.high,
                "seeds": values.matrix.shape[0],
                "prompts": values.matrix.shape[1],
                "per_seed": per_seed.tolist(),
            }
        )
    return pa.Table.from_pylist(rows)


def contrasts_table(
    matrices: Sequence[Values],
    contrasts: Sequence[tuple[str, str]],
    primary_metric: str,
    primary_prompt_form: str,
) -> pa.Table:
    """contrasts.parquet: every declared pair of arms on every form and metric.

    `declared` marks the primary metric and form, which were named before the run; their p-values
    are adjusted by Holm among themselves. All other rows are exploratory.
    """
    found = {(v.arm, v.prompt_form, v.metric): v.matrix for v in matrices}
    rows: list[dict[str, Any]] = []
    for arm_a, arm_b in contrasts:
        for (arm, form, metric), a in found.items():
            b = found.get((arm_b, form, metric))
            if arm != arm_a or b is None or np.isnan(a - b).all():
                continue
            contrast = paired_contrast(a, b)
            rows.append(
                {
                    "arm_a": arm_a,
                    "arm_b": arm_b,
                    "prompt_form": form,
                    "metric": metric,
                    "difference": contrast.difference,
                    "low": contrast.t.low,
                    "high": contrast.t.high,
                    "bootstrap_low": contrast.bootstrap.low,
                    "bootstrap_high": contrast.bootstrap.high,
                    "p_value": contrast.p_value,
                    "claimed": contrast.claimed,
                    "declared": metric == primary_metric and form == primary_prompt_form,
                    "seeds": a.shape[0],
                    "prompts": a.shape[1],
                    "method": "paired t over seeds; bootstrap over seeds and prompts",
                    "verdict": verdict(arm_a, arm_b, metric, form, contrast, a.shape[0]),
                    "per_seed": list(contrast.per_seed),
                }
            )
    adjusted = iter(holm([row["p_value"] for row in rows if row["declared"]]))
    for row in rows:
        row["p_holm"] = next(adjusted) if row["declared"] else float("nan")
    return pa.Table.from_pylist(rows)


def headline(contrasts: pa.Table) -> list[str]:
    """The declared contrasts in words: the answer of the ablation."""
    return [row["verdict"] for row in contrasts.to_pylist() if row["declared"]]


def text_table(arms: pa.Table, metrics: Sequence[str], seeds: int) -> str:
    """The arms as a plain-text table, percent with 95% intervals over seeds and prompts."""
    rows = {(r["prompt_form"], r["arm"], r["metric"]): r for r in arms.to_pylist()}
    forms = list(dict.fromkeys(row[0] for row in rows))
    names = list(dict.fromkeys(row[1] for row in rows))
    width = max(len(name) for name in names) + 2
    lines = [f"percent of what the prompt asks for, mean of {seeds} seeds [95% bootstrap]"]
    for form in forms:
        lines.append("")
        lines.append(f"{form} prompts".ljust(width + 11) + "".join(m.rjust(16) for m in metrics))
        for name in names:
            cells = []
            for metric in metrics:
                row = rows.get((form, name, metric))
                cells.append(
                    "-".rjust(16)
                    if row is None
                    else f"{_percent(row['mean'])} [{_percent(row['low'])},"
                    f"{_percent(row['high'])}]".rjust(16)
                )
            lines.append("  " + name.ljust(width + 9) + "".join(cells))
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
