"""Every measurement of a study: by prompt form and wording, beside ceilings and floors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipelines.report import metrics
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.study import ALL, Row, Study, asked, study


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, as text."""

    value: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Panel:
    """One table: an arm a row, a metric a column; `bounds`: metric -> the row of bounds.parquet."""

    title: str
    form: str
    metrics: list[str]
    cells: dict[tuple[str, str], Cell]
    bounds: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Measurements:
    """The facts of this section. `sets`: what was measured of whole sets of pictures."""

    study: Study
    panels: list[Panel]
    apart: list[Panel]
    sets: list[dict[str, Any]]
    others: list[Row]
    undefined: list[str]


def compute(inputs: Inputs) -> Measurements | None:
    found = study(inputs)
    if found is None:
        return None
    bounds = inputs.results("bounds")
    asides = [name for name in found.metrics if metrics.metric(name).less_is_better]
    aligned = [name for name in found.metrics if name not in asides]
    where = [(form, wording) for form, wordings in found.forms.items() for wording in wordings]
    panels, apart = (
        [
            panel
            for form, wording in where
            if (panel := _panel(found, form, wording, names, bounds)).cells
        ]
        for names in (aligned, asides)
    )
    return Measurements(
        study=found,
        panels=panels,
        apart=apart,
        sets=_sets(inputs),
        others=[row for row in found.contrasts if not row["declared"] and row["group"] == ALL],
        undefined=[str(line) for line in inputs.run_record.get("undefined", [])],
    )


def _panel(
    found: Study, form: str, wording: str, names: list[str], bounds: list[dict[str, Any]]
) -> Panel:
    cells: dict[tuple[str, str], Cell] = {}
    for name in names:
        rows = {
            arm: row
            for arm in found.arms
            if (row := found.cells.get((arm, form, wording, ALL, name))) is not None
        }
        means = [row["mean"] for row in rows.values() if math.isfinite(row["mean"])]
        lower = metrics.metric(name).less_is_better
        best = (min(means) if lower else max(means)) if means else math.nan
        for arm, row in rows.items():
            low, high = metrics.limits(row)
            mean = metrics.value(name, row["mean"], low=low, high=high)
            limits = metrics.interval(name, low, high)
            cells[name, arm] = Cell(mean, limits, row["mean"] == best)
    shown = [name for name in names if any(metric == name for metric, _ in cells)]
    own = {row["metric"]: row for row in bounds if row["form"] == form}
    return Panel(asked(form, wording), form, shown, cells, own)


def _sets(inputs: Inputs) -> list[dict[str, Any]]:
    """Means over seeds of what was measured of whole sets, with their least floor."""
    path = inputs.result_path("sets")
    if path is None or not inputs.parquet(path):
        return []
    from curate.store.scans import parquet_scan

    return inputs.rows(
        "SELECT metric, form, arm, avg(value) AS mean, list(value ORDER BY seed) AS per_seed, "
        f"avg(floor) AS floor, max(pictures) AS pictures FROM {parquet_scan(path)} "
        "GROUP BY ALL ORDER BY metric, form, arm"
    )


def draw(facts: Measurements, page: Page) -> Section:
    return page.section(
        "ablation",
        "Every measurement",
        facts=facts,
        metrics=metrics,
        asked=asked,
    )
