"""The ablation's tables and plots: arms with intervals, and contrasts with verdicts in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report import metrics, text
from pipelines.report.charts import Estimate, Group, dot_chart
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.sections.grids import in_order


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, as text."""

    value: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Contrast:
    """arm_a - arm_b on one metric and prompt form."""

    arm_a: str
    arm_b: str
    prompt_form: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    bootstrap: tuple[float | None, float | None]
    per_seed: list[float]
    declared: bool
    claimed: bool | None
    p_value: float | None
    verdict: str
    method: str


@dataclass(frozen=True)
class Ablation:
    """The facts of this section. `rows[form][metric][arm]` is a row of arms.parquet."""

    arms: list[str]
    forms: list[str]
    metrics: list[str]
    rows: dict[str, dict[str, dict[str, dict[str, Any]]]]
    contrasts: list[Contrast]
    primary_metric: str
    seeds: int
    prompts: int
    blends: list[tuple[str, str]]
    undefined: list[str]


def compute(inputs: Inputs) -> Ablation | None:
    table = inputs.results("arms")
    if not table:
        return None
    rows: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for row in table:
        by_metric = rows.setdefault(row["prompt_form"], {})
        by_metric.setdefault(row["metric"], {})[row["arm"]] = row
    settings = inputs.run_record.get("settings")
    primary = inputs.run_record.get("primary_metric")
    primary = primary or (settings or {}).get("primary_metric") or table[0]["metric"]
    blends = [
        (arm["name"], ", ".join(f"{kind} {share:.0%}" for kind, share in arm["captions"].items()))
        for arm in inputs.run_record.get("arms", [])
    ]
    named = metrics.ordered(row["metric"] for row in table)
    return Ablation(
        arms=[arm for arm in inputs.arms if any(row["arm"] == arm for row in table)],
        forms=in_order([row["prompt_form"] for row in table]),
        metrics=[str(primary), *(name for name in named if name != primary)],
        rows=rows,
        contrasts=[_contrast(row) for row in inputs.results("contrasts")],
        primary_metric=str(primary),
        seeds=max(row["seeds"] for row in table),
        prompts=max(row["prompts"] for row in table),
        blends=blends,
        undefined=[str(line) for line in inputs.run_record.get("undefined", [])],
    )


def _contrast(row: dict[str, Any]) -> Contrast:
    low, high = metrics.limits(row)
    return Contrast(
        row["arm_a"],
        row["arm_b"],
        row["prompt_form"],
        row["metric"],
        row["difference"],
        low,
        high,
        (row.get("bootstrap_low"), row.get("bootstrap_high")),
        list(row.get("per_seed") or []),
        bool(row["declared"]),
        row.get("claimed"),
        row.get("p_holm"),
        row["verdict"],
        row["method"],
    )


def draw(facts: Ablation, page: Page) -> Section:
    shares = [name for name in facts.metrics if _is_aligned_share(name)]
    apart = [name for name in facts.metrics if metrics.metric(name).less_is_better]
    scores = [name for name in facts.metrics if name not in (*shares, *apart)]
    declared = [row for row in facts.contrasts if row.declared]
    return page.section(
        "ablation",
        "The ablation",
        facts=facts,
        metrics=metrics,
        panels=[
            (form, chart)
            for form in facts.forms
            if (chart := _share_chart(facts, form, shares, page))
        ],
        score_panels=[(name, _metric_chart(facts, name, page)) for name in scores],
        apart_panels=[(name, _metric_chart(facts, name, page)) for name in apart],
        tables=[(form, [*shares, *scores], _cells(facts, form)) for form in facts.forms],
        apart=apart,
        cells={form: _cells(facts, form) for form in facts.forms},
        declared=declared,
        others=[row for row in facts.contrasts if not row.declared],
        contrast_chart=_contrast_chart(facts, page),
        method=declared[0].method if declared else "",
    )


def _is_aligned_share(name: str) -> bool:
    known = metrics.metric(name)
    return known.unit == "share" and not known.less_is_better


def _estimate(name: str, metric: str, row: dict[str, Any], label: str = "") -> Estimate:
    low, high = metrics.limits(row)
    shown = f"{name}: {metrics.value(metric, row['mean'])} {metrics.interval(metric, low, high)}"
    dots = [value for value in row.get("per_seed") or [] if value is not None]
    return Estimate(label, name, row["mean"], low, high, dots=dots, title=shown.strip())


def _share_chart(facts: Ablation, form: str, names: list[str], page: Page) -> Markup | None:
    groups = []
    for name in names:
        found = facts.rows.get(form, {}).get(name, {})
        rows = [_estimate(arm, name, found[arm]) for arm in facts.arms if arm in found]
        if rows:
            groups.append(Group(metrics.label(name), rows))
    if not groups:
        return None
    said = "; ".join(
        f"{group.heading}: {', '.join(r.title for r in group.rows)}" for group in groups
    )
    return dot_chart(
        groups,
        page.palette,
        "share right, percent",
        (0.0, 1.0),
        lambda value: f"{100 * value:.0f}",
        f"Alignment on {text.words(form)} prompts. {said}.",
    )


def _metric_chart(facts: Ablation, name: str, page: Page) -> Markup:
    groups, ends = [], [0.0]  # a cosine may lie below 0
    for form in facts.forms:
        found = facts.rows.get(form, {}).get(name, {})
        rows = [_estimate(arm, name, found[arm]) for arm in facts.arms if arm in found]
        for row in rows:
            ends += [v for v in (row.mean, row.low, row.high, *row.dots) if v is not None]
        if rows:
            groups.append(Group(text.words(form), rows))
    known = metrics.metric(name)
    unit = "percent" if known.unit == "share" else "a picture" if known.unit == "count" else ""
    said = "; ".join(
        f"{group.heading}: {', '.join(r.title for r in group.rows)}" for group in groups
    )
    finite = [value for value in ends if math.isfinite(value)]
    lowest, highest = min(finite) * 1.05, max(finite) * 1.05 or 1.0
    return dot_chart(
        groups,
        page.palette,
        f"{known.label}, {unit}" if unit else known.label,
        (lowest, min(highest, 1.0) if known.unit == "share" else highest),
        (lambda v: f"{100 * v:.0f}") if known.unit == "share" else text.tick,
        f"{known.label} by prompt form. {said}.",
    )


def _contrast_chart(facts: Ablation, page: Page) -> Markup | None:
    chosen = [row for row in facts.contrasts if row.metric == facts.primary_metric]
    share = metrics.metric(facts.primary_metric).unit == "share"
    groups, reach = [], [0.0]
    for form in facts.forms:
        rows = []
        for row in chosen:
            if row.prompt_form != form:
                continue
            reach += [row.difference, *row.per_seed]
            reach += [v for v in (row.low, row.high, *row.bootstrap) if v is not None]
            title = (
                f"{row.arm_a} {text.MINUS} {row.arm_b}: "
                f"{metrics.value(row.metric, row.difference, signed=True)} "
                f"{metrics.interval(row.metric, row.low, row.high, signed=True)}"
            )
            rows.append(
                Estimate(
                    f"{row.arm_a} {text.MINUS} {row.arm_b}",
                    row.arm_a,
                    row.difference,
                    *row.bootstrap,
                    outer=(row.low, row.high),
                    dots=row.per_seed,
                    title=title.strip(),
                )
            )
        if rows:
            groups.append(Group(f"{text.words(form)} prompts", rows))
    if not groups:
        return None
    finite = [value for value in reach if math.isfinite(value)]
    margin = 0.06 * (max(finite) - min(finite)) or 0.05
    low, high = min(finite) - margin, max(finite) + margin
    if share:
        low, high = max(low, -1.0), min(high, 1.0)
    said = "; ".join(
        f"{group.heading}: {', '.join(r.title for r in group.rows)}" for group in groups
    )
    return dot_chart(
        groups,
        page.palette,
        f"difference, {'percentage points' if share else metrics.label(facts.primary_metric)}",
        (low, high),
        (lambda v: text.tick(100 * v)) if share else text.tick,
        f"Differences in {metrics.label(facts.primary_metric)}. {said}.",
        zero=True,
    )


def _cells(facts: Ablation, form: str) -> dict[tuple[str, str], Cell]:
    cells = {}
    for name, found in facts.rows.get(form, {}).items():
        means = [row["mean"] for row in found.values() if math.isfinite(row["mean"])]
        lower = metrics.metric(name).less_is_better
        best = (min(means) if lower else max(means)) if means else math.nan
        for arm, row in found.items():
            low, high = metrics.limits(row)
            cells[name, arm] = Cell(
                metrics.value(name, row["mean"]),
                metrics.interval(name, low, high),
                row["mean"] == best,
            )
    return cells
