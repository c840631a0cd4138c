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

from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.metrics import ordered
from pipelines.ablation.statistics import (
    Contrast,
    bootstrap_interval,
    claims,
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


CONTRASTS = pa.schema(
    [
        *((name, pa.string()) for name in ("arm_a", "arm_b", "prompt_form", "metric")),
        *((name, pa.float64()) for name in ("difference", "low", "high")),  # paired t over seeds
        *((name, pa.float64()) for name in ("bootstrap_low", "bootstrap_high")),
        *((name, pa.float64()) for name in ("p_value", "p_holm")),
        *((name, pa.bool_()) for name in ("claimed", "declared")),
        *((name, pa.int64()) for name in ("seeds", "prompts")),
        *((name, pa.string()) for name in ("method", "verdict")),
        ("per_seed", pa.list_(pa.float64())),  # differences
    ]
)


@dataclass(frozen=True)
class Values:
    """One metric of one arm and prompt form: `(S, P)`, seeds by prompts, NaN = undefined."""

    arm: str
    prompt_form: str
    metric: str
    matrix: NDArray[np.float64]

    @property
    def defined(self) -> bool:
        """Whether every seed has a value; otherwise the metric is left out, and said to be."""
        return not np.isnan(per_seed_means(self.matrix)).any()


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
        if not values.defined:
            continue
        per_seed = per_seed_means(values.matrix)
        interval = bootstrap_interval(values.matrix)
        known = metric_of(values.metric)
        t = t_interval(per_seed)
        t_low, t_high = known.within(t.low, t.high)
        rows.append(
            {
                "arm": values.arm,
                "prompt_form": values.prompt_form,
                "metric": values.metric,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "t_low": t_low,
                "t_high": t_high,
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

    `declared` marks the primary metric and form, which were named before the run. All other rows
    are exploratory. Both are claimed by the same rule, each adjusted by Holm among its own. Pairs
    of which a seed has no defined value are left out.
    """
    found = {(v.arm, v.prompt_form, v.metric): v.matrix for v in matrices}
    pairs: list[tuple[str, str, str, str, Contrast]] = []
    for arm_a, arm_b in contrasts:
        for (arm, form, metric), a in found.items():
            b = found.get((arm_b, form, metric))
            if arm != arm_a or b is None or np.isnan(per_seed_means(a - b)).any():
                continue
            pairs.append((arm_a, arm_b, form, metric, paired_contrast(a, b)))
    declared = [
        (form, metric) == (primary_prompt_form, primary_metric) for *_, form, metric, _ in pairs
    ]
    families = {
        family: iter(
            claims([pair[-1] for pair, own in zip(pairs, declared, strict=True) if own == family])
        )
        for family in (True, False)
    }
    rows: list[dict[str, Any]] = []
    for (arm_a, arm_b, form, metric, contrast), family in zip(pairs, declared, strict=True):
        claim = next(families[family])
        known = metric_of(metric)
        low, high = known.within(contrast.t.low, contrast.t.high, difference=True)
        rows.append(
            {
                "arm_a": arm_a,
                "arm_b": arm_b,
                "prompt_form": form,
                "metric": metric,
                "difference": contrast.difference,
                "low": low,
                "high": high,
                "bootstrap_low": contrast.bootstrap.low,
                "bootstrap_high": contrast.bootstrap.high,
                "p_value": contrast.p_value,
                "p_holm": claim.p_holm,
                "claimed": claim.claimed,
                "declared": family,
                "seeds": len(contrast.per_seed),
                "prompts": found[arm_a, form, metric].shape[1],
                "method": "paired t over seeds; bootstrap over seeds and prompts; Holm",
                "verdict": verdict(arm_a, arm_b, metric, form, contrast, claim),
                "per_seed": list(contrast.per_seed),
            }
        )
    return pa.Table.from_pylist(rows, schema=CONTRASTS)


def headline(contrasts: pa.Table) -> list[str]:
    """The declared contrasts in words: the answer of the ablation."""
    return [row["verdict"] for row in contrasts.to_pylist() if row["declared"]]


def unanswered(
    contrasts: pa.Table, declared: Sequence[tuple[str, str]], metric: str, form: str
) -> list[str]:
    """A sentence for each declared contrast that is not in the table, since it is undefined."""
    answered = {(r["arm_a"], r["arm_b"]) for r in contrasts.to_pylist() if r["declared"]}
    why = f"cannot be compared: {metric_of(metric).label} is undefined for a seed."
    return [f"{a} and {b} on {form} prompts {why}" for a, b in declared if (a, b) not in answered]


def left_out(matrices: Sequence[Values]) -> list[str]:
    """Which metrics are undefined where: "position, count on short prompts"."""
    arms = list(dict.fromkeys(values.arm for values in matrices))
    where: dict[tuple[str, str], list[str]] = {}
    for values in matrices:
        if not values.defined:
            where.setdefault((values.prompt_form, values.metric), []).append(values.arm)
    names: dict[str, list[str]] = {}
    for (form, metric), lacking in where.items():
        whose = "" if len(lacking) == len(arms) else f" of {', '.join(lacking)}"
        names.setdefault(f"{whose} on {form} prompts", []).append(metric_of(metric).label)
    return [", ".join(dict.fromkeys(labels)) + place for place, labels in names.items()]


def text_table(arms: pa.Table, seeds: int, undefined: Sequence[str] = ()) -> str:
    """The arms as a plain-text table, a row a metric, with 95% intervals over seeds and prompts."""
    rows = {(r["prompt_form"], r["metric"], r["arm"]): r for r in arms.to_pylist()}
    names = list(dict.fromkeys(arm for *_, arm in rows))
    cells = {place: _cell(row) for place, row in rows.items()}
    width = max([len(cell) for cell in cells.values()] + [len(name) for name in names]) + 2
    lines = [f"mean of {seeds} seed{'s'[: seeds > 1]} [95% bootstrap over seeds and prompts]"]
    for form in dict.fromkeys(form for form, *_ in rows):
        metrics = ordered(metric for other, metric, _ in rows if other == form)
        shown = [metric for metric in metrics if metric_of(metric).brief]
        margin = max(len(form) + 8, *(len(metric_of(metric).column) + 2 for metric in shown)) + 1
        lines += ["", f"{form} prompts".ljust(margin) + "".join(n.rjust(width) for n in names)]
        for metric in shown:
            own = "".join(cells.get((form, metric, name), "-").rjust(width) for name in names)
            lines.append(f"  {metric_of(metric).column}".ljust(margin) + own)
    if undefined:
        lines += ["", f"undefined and left out: {'; '.join(undefined)}"]
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    known = metric_of(row["metric"])
    if not row["low"] <= row["high"]:  # NaN
        return known.shown(row["mean"])
    return f"{known.shown(row['mean'])} {known.limits(row['low'], row['high'])}"
