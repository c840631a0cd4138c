"""Dose curves: how the result moves with the share of a caption kind, or of faults in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report import metrics, text
from pipelines.report.charts import DoseCurve, dose_chart
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.study import ALL, Row, Study, asked, study


@dataclass(frozen=True)
class Doses:
    """The facts of this section.

    `sweeps`: name -> its rows of trends.parquet on the metric that decides; `arms`: name -> arm ->
    its dose.
    """

    study: Study
    sweeps: dict[str, list[Row]]
    arms: dict[str, dict[str, float]]


def compute(inputs: Inputs) -> Doses | None:
    found = study(inputs)
    rows = inputs.results("trends")
    if found is None or not rows:
        return None
    sweeps: dict[str, list[Row]] = {}
    for row in rows:
        if row["metric"] == found.metric and row["wording"] in (ALL, found.wording):
            sweeps.setdefault(row["sweep"], []).append(row)
    return Doses(found, sweeps, inputs.run_record.get("trends", {})) if sweeps else None


def draw(facts: Doses, page: Page) -> Section:
    return page.section(
        "doses",
        "Dose curves",
        facts=facts,
        metric=metrics.metric(facts.study.metric),
        panels=[(name, _chart(facts, name, rows, page)) for name, rows in facts.sweeps.items()],
        asked=asked,
        value=metrics.value,
        interval=metrics.interval,
    )


def _chart(facts: Doses, name: str, rows: list[Row], page: Page) -> Markup:
    curves = [
        DoseCurve(asked(row["form"], row["wording"]), _points(facts, name, row))
        for row in rows
        if row["wording"] == ALL or len(facts.study.forms[row["form"]]) == 1
    ]
    known = metrics.metric(facts.study.metric)
    share = known.unit == "share"
    return dose_chart(
        curves,
        page.palette,
        "percent",
        f"{known.label}, percent" if share else known.label,
        (lambda v: text.tick(100 * v)) if share else text.tick,
    )


def _points(facts: Doses, name: str, row: Row) -> list[tuple[float, float, Any, Any]]:
    """(dose, mean, low, high); limits from the arms' own rows."""
    arm_of = {dose: arm for arm, dose in facts.arms.get(name, {}).items()}
    points = []
    for dose, mean in zip(row["doses"], row["means"], strict=True):
        where = (row["form"], row["wording"], ALL, row["metric"])
        own = facts.study.cells.get((arm_of.get(dose, ""), *where))
        points.append((dose, mean, *(metrics.limits(own) if own is not None else (None, None))))
    return points
