"""Training curves by arm and seed, and the blend of captions that the runs really saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipelines.report.charts import Line, line_chart
from pipelines.report.inputs import Inputs, TrainRun
from pipelines.report.page import Page, Section

POINTS = 120  # of a curve; longer runs are averaged in equal spans of steps

# Column of metrics.parquet -> axis label, and whether its axis is logarithmic.
PLOTTED = {
    "loss": ("training loss", True),
    "validation_loss": ("validation loss", True),
    "learning_rate": ("learning rate", False),
    "lr": ("learning rate", False),
    "images_per_second": ("images a second", False),
}


@dataclass(frozen=True)
class Curve:
    """One column of one run over its steps, averaged to at most POINTS points."""

    run: TrainRun
    steps: list[float]
    values: list[float]


@dataclass(frozen=True)
class Blend:
    """The declared share of a kind and the shares that the seeds of an arm realised."""

    kind: str
    declared: float
    realised: list[float]


@dataclass(frozen=True)
class Training:
    """The facts of this section: column -> curves, arm -> blends."""

    curves: dict[str, list[Curve]]
    arms: list[str]
    seeds: list[int]
    blends: dict[str, list[Blend]]


def compute(inputs: Inputs) -> Training | None:
    curves: dict[str, list[Curve]] = {}
    for run in inputs.train_runs:
        columns = _read(inputs, run)
        steps = columns.pop("step", None)
        if steps is None:
            continue
        for name, values in columns.items():
            if name in PLOTTED and np.isfinite(values).any():
                curves.setdefault(name, []).append(Curve(run, *thinned(steps, values)))
    blends = _blends(inputs)
    if not curves and not blends:
        return None
    order = [arm for arm in inputs.arms if any(run.arm == arm for run in inputs.train_runs)]
    return Training(
        curves={name: curves[name] for name in PLOTTED if name in curves},
        arms=order or list(blends),
        seeds=sorted({run.seed for run in inputs.train_runs}),
        blends=blends,
    )


def _read(inputs: Inputs, run: TrainRun) -> dict[str, NDArray[np.float64]]:
    rows = inputs.parquet(run.directory / "metrics.parquet")
    if not rows:
        return {}
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], float)
        for name in rows[0]
        if name == "step" or name in PLOTTED
    }


def thinned(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Means over at most POINTS equal spans of steps; spans without a finite value are left out."""
    kept = np.isfinite(values)
    steps, values = steps[kept], values[kept]
    if len(steps) <= POINTS:
        return steps.tolist(), values.tolist()
    edges = np.linspace(steps.min(), steps.max(), POINTS + 1)[1:-1]
    span = np.searchsorted(edges, steps)
    counts = np.bincount(span, minlength=POINTS)
    filled = counts > 0
    centres = np.bincount(span, steps, POINTS)[filled] / counts[filled]
    means = np.bincount(span, values, POINTS)[filled] / counts[filled]
    return centres.tolist(), means.tolist()


def _blends(inputs: Inputs) -> dict[str, list[Blend]]:
    found: dict[str, dict[str, Blend]] = {}
    for row in inputs.results("blend"):
        kinds = found.setdefault(row["arm"], {})
        blend = kinds.setdefault(row["kind"], Blend(row["kind"], row["share_declared"], []))
        blend.realised.append(row["share_realised"])
    return {arm: list(found[arm].values()) for arm in inputs.arms if arm in found}


def draw(facts: Training, page: Page) -> Section:
    charts = [
        Markup(chart)
        for name, curves in facts.curves.items()
        if (chart := _chart(name, curves, page))
    ]
    return page.section("training", "Training", facts=facts, charts=charts, mean=_mean)


def _chart(name: str, curves: Sequence[Curve], page: Page) -> Markup:
    label, logarithmic = PLOTTED[name]
    lines = [Line(curve.run.arm, curve.steps, curve.values) for curve in curves]
    return line_chart(
        lines,
        page.palette,
        "step",
        label + (", logarithmic" if logarithmic else ""),
        from_zero=not logarithmic,
        logarithmic=logarithmic,
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
