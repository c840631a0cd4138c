"""Training curves by arm and seed, what a model makes of its text, and the blend really seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from curate.base.files import read_json
from pipelines.report import text
from pipelines.report.charts import Estimate, Group, Line, dot_chart, line_chart
from pipelines.report.data import Inputs, TrainRun
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture, thumbnail

POINTS = 120  # of a curve; longer runs are averaged in equal spans of steps
GRID_SIDE = 420

# Column of metrics.parquet -> axis label, and whether its axis is logarithmic.
PLOTTED = {
    "loss": ("training loss", True),
    "learning_rate_scale": ("learning rate, share of its peak", False),
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
class Finished:
    """What a finished run says of itself."""

    run: TrainRun
    steps: int
    samples: int
    loss: float | None
    images_per_second: float
    seconds: float
    truncated: str
    device: str


@dataclass(frozen=True)
class Training:
    """The facts of this section.

    `curves`: column -> curves. `validation`: caption kind ("empty" = none) -> arm -> final loss of
    each seed. `grid`: the last sample grid, of a single run.
    """

    curves: dict[str, list[Curve]]
    validation: dict[str, dict[str, list[float]]]
    arms: list[str]
    seeds: list[int]
    blends: dict[str, list[Blend]]
    finished: list[Finished]
    grid: Picture | None


def compute(inputs: Inputs) -> Training | None:
    curves: dict[str, list[Curve]] = {}
    validation: dict[str, dict[str, list[float]]] = {}
    for run in inputs.train_runs:
        columns = _read(inputs, run)
        steps = columns.pop("step", None)
        for name, values in columns.items():
            if steps is not None and np.isfinite(values).any():
                curves.setdefault(name, []).append(Curve(run, *thinned(steps, values)))
        for kind, loss in _validation(inputs, run).items():
            validation.setdefault(kind, {}).setdefault(run.arm, []).append(loss)
    blends = _blends(inputs)
    if not curves and not blends:
        return None
    order = [arm for arm in inputs.arms if any(run.arm == arm for run in inputs.train_runs)]
    return Training(
        curves={name: curves[name] for name in PLOTTED if name in curves},
        validation=validation,
        arms=order or list(blends),
        seeds=sorted({run.seed for run in inputs.train_runs}),
        blends=blends,
        finished=[done for run in inputs.train_runs if (done := _finished(run)) is not None],
        grid=_grid(inputs.train_runs[0]) if len(inputs.train_runs) == 1 else None,
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


def _validation(inputs: Inputs, run: TrainRun) -> dict[str, float]:
    """Caption kind -> mean loss over timesteps, at the last step that was validated."""
    rows = inputs.parquet(run.directory / "validation.parquet")
    last = max((row["step"] for row in rows), default=None)
    losses: dict[str, list[float]] = {}
    for row in rows:
        if row["step"] == last:
            losses.setdefault(row["caption_kind"], []).append(row["loss"])
    return {kind: float(np.mean(values)) for kind, values in losses.items()}


def _blends(inputs: Inputs) -> dict[str, list[Blend]]:
    found: dict[str, dict[str, Blend]] = {}
    for row in inputs.results("blend"):
        kinds = found.setdefault(row["arm"], {})
        blend = kinds.setdefault(row["kind"], Blend(row["kind"], row["share_declared"], []))
        blend.realised.append(row["share_realised"])
    return {arm: list(found[arm].values()) for arm in inputs.arms if arm in found}


def _finished(run: TrainRun) -> Finished | None:
    path = run.directory / "summary.json"
    if not path.exists():
        return None
    summary: dict[str, Any] = read_json(path)
    cut = ", ".join(f"{kind} {n:,}" for kind, n in summary["truncated"].items() if n)
    return Finished(
        run,
        summary["steps"],
        summary["samples"],
        summary["loss"],
        summary["images_per_second"],
        summary["seconds"],
        cut or "none",
        f"{summary['device']}, {summary['precision']}",
    )


def _grid(run: TrainRun) -> Picture | None:
    grids = sorted((run.directory / "grids").glob("step-*.png"))
    if not grids:
        return None
    step = int(grids[-1].stem.removeprefix("step-"))
    return thumbnail(grids[-1].read_bytes(), f"sample grid after {step} steps", GRID_SIDE)


def draw(facts: Training, page: Page) -> Section:
    charts = [_curves(name, curves, page) for name, curves in facts.curves.items()]
    charts.append(_validation_chart(facts, page))
    return page.section(
        "training",
        "Training",
        facts=facts,
        charts=[chart for chart in charts if chart],
        mean=_mean,
    )


def _curves(name: str, curves: Sequence[Curve], page: Page) -> Markup:
    label, logarithmic = PLOTTED[name]
    return line_chart(
        [Line(curve.run.arm, curve.steps, curve.values) for curve in curves],
        page.palette,
        "step",
        label + (", logarithmic" if logarithmic else ""),
        from_zero=not logarithmic,
        logarithmic=logarithmic,
    )


def _validation_chart(facts: Training, page: Page) -> Markup:
    groups, highest = [], 0.0
    for kind, by_arm in sorted(facts.validation.items(), key=lambda one: one[0] == "empty"):
        rows = []
        for arm in facts.arms:
            losses = [loss for loss in by_arm.get(arm, []) if np.isfinite(loss)]
            if losses:
                highest = max(highest, *losses)
                said = f"{arm}: {text.number(_mean(losses))}"
                rows.append(Estimate("", arm, _mean(losses), dots=losses, title=said))
        if rows:
            groups.append(Group("no caption" if kind == "empty" else text.words(kind), rows))
    if not groups:
        return Markup("")
    told = "; ".join(f"{g.heading}: {', '.join(row.title for row in g.rows)}" for g in groups)
    return dot_chart(
        groups,
        page.palette,
        "validation loss with these captions",
        (0.0, highest * 1.08 or 1.0),
        text.tick,
        f"Validation loss by the captions that the model is given. {told}.",
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
