"""The report's five kinds of chart as functions from numbers to inline SVG.

All are drawn about 360 units wide, so that a label stays readable where the chart fills a phone's
width, and are laid out side by side on a wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from pipelines.report.palette import Palette
from pipelines.report.svg import CHARACTER, Drawing, Scale, ticks
from pipelines.report.text import integer, number, short, tick

WIDTH = 360.0


@dataclass(frozen=True)
class Threshold:
    """Where a selection cuts a score: `value`, and on which side samples are kept."""

    value: float
    keeps_above: bool
    text: str  # the rule, as written
    shaded: bool = True  # whether the dropped side is shaded


@dataclass(frozen=True)
class Bins:
    """A histogram's counts. `counts[name][i]` lie in [edges[i], edges[i + 1])."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


def histogram(
    bins: Bins, css: dict[str, str], x_label: str, thresholds: Sequence[Threshold] = ()
) -> Markup:
    """Stacked bars of counts; the part that a threshold drops is shaded.

    Args:
        css: class of each name in `bins.counts`, drawn from the bottom up in this order.
        thresholds: labels that would cover one another are put on lines of their own.
    """
    right, bottom = 8.0, 42.0
    totals = [sum(column) for column in zip(*bins.counts.values(), strict=True)]
    peak = max([*totals, 1])
    marks = ticks(0, peak, 4)
    left = 12 + CHARACTER * max(len(short(mark)) for mark in marks)
    spread = Scale(bins.edges[0], bins.edges[-1], left, WIDTH - right)
    within = [t for t in thresholds if spread.low <= t.value <= spread.high]
    lines = _label_lines([(spread(t.value), t.text) for t in within])
    top = 22.0 + 14.0 * max([0, *lines])
    height = 188.0 + top
    x = Scale(bins.edges[0], bins.edges[-1], left, WIDTH - right)
    y = Scale(0, peak * 1.04, height - bottom, top)
    what = "; ".join(f"{name}: {integer(sum(c))}" for name, c in bins.counts.items())
    cut = "".join(f"; the selection keeps {t.text}" for t in thresholds)
    drawing = Drawing(
        WIDTH,
        height,
        f"Histogram of {x_label} from {number(bins.edges[0])} to {number(bins.edges[-1])}. "
        f"{what}{cut}.",
    )
    for threshold in (one for one in thresholds if one.shaded):
        place = min(max(x(threshold.value), left), WIDTH - right)
        dropped = (left, place) if threshold.keeps_above else (place, WIDTH - right)
        drawing.rectangle(dropped[0], top, dropped[1] - dropped[0], height - top - bottom, "shade")
    _y_axis(drawing, y, marks, left, WIDTH - right, short)
    base = [0] * len(totals)
    for name, style in css.items():
        for index, count in enumerate(bins.counts.get(name, ())):
            if not count:
                continue
            low, high = x(bins.edges[index]), x(bins.edges[index + 1])
            lower, upper = y(base[index]), y(base[index] + count)
            title = (
                f"{name}: {integer(count)} from {number(bins.edges[index])} "
                f"to {number(bins.edges[index + 1])}"
            )
            drawing.rectangle(low + 0.5, upper, high - low - 1, lower - upper, style, title)
            base[index] += count
    _x_axis(drawing, x, height - bottom, x_label, height - 6, short)
    for threshold, line in zip(within, lines, strict=True):
        place = x(threshold.value)
        head = top - 6 - 14 * line
        drawing.line(place, head, place, height - bottom, "cut")
        anchor = _anchor(place, len(threshold.text))
        drawing.text(place, head - 4, threshold.text, "cut-label", anchor)
    return drawing.markup()


def _label_lines(labels: Sequence[tuple[float, str]]) -> list[int]:
    """The line (0 is the lowest) of each label (place, text), so that none covers another."""
    taken: list[list[tuple[float, float]]] = []
    lines = []
    for place, label in labels:
        half = len(label) * CHARACTER / 2
        shift = {"middle": -half, "start": 0.0, "end": -2 * half}[_anchor(place, len(label))]
        start, stop = place + shift - 4, place + shift + 2 * half + 4
        line = 0
        # A dashed line that runs up through a lower label would cross it: lower ones come first.
        while line < len(taken) and any(start < b and a < stop for a, b in taken[line]):
            line += 1
        if line == len(taken):
            taken.append([])
        taken[line].append((start, stop))
        lines.append(line)
    return lines


@dataclass(frozen=True)
class Line:
    """One curve. `name` decides the colour."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    lines: Sequence[Line],
    palette: Palette,
    x_label: str,
    y_label: str,
    from_zero: bool = False,
    logarithmic: bool = False,
) -> Markup:
    """Curves over a shared x axis; a curve of one point is drawn as a marker."""
    height, left, right, top, bottom = 230.0, 50.0, 12.0, 26.0, 42.0
    # A logarithm needs positive values; others leave a gap, as NaN does.
    kept = [
        (
            line,
            [
                (float(x), math.log10(y) if logarithmic else float(y))
                for x, y in zip(line.x, line.y, strict=True)
                if math.isfinite(y) and (y > 0 or not logarithmic)
            ],
        )
        for line in lines
    ]
    corners = [corner for _, path in kept for corner in path]
    if not corners:
        return Markup("")
    xs, ys = zip(*corners, strict=True)
    low, high = min(ys), max(ys)
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = (0.0 if from_zero and not logarithmic else low - margin), high + margin
    x = Scale(min(xs), max(xs), left, WIDTH - right)
    y = Scale(low, high, height - bottom, top)
    names = ", ".join(dict.fromkeys(line.name for line in lines))
    drawing = Drawing(WIDTH, height, f"{y_label} over {x_label}; curves: {names}.")
    if logarithmic:
        marks = _decades(low, high)
        _y_axis(drawing, y, marks, left, WIDTH - right, lambda v: tick(10**v))
    else:
        _y_axis(drawing, y, ticks(low, high, 5), left, WIDTH - right, tick)
    drawing.text(4, 12, y_label, "axis-title")
    for line, path in kept:
        style = palette.css(line.name)
        placed = [(x(a), y(b)) for a, b in path]
        if len(placed) == 1:
            drawing.marker(palette.marker(line.name), *placed[0], 4, style, line.name)
        elif placed:
            drawing.path(placed, f"curve {style}", line.name)
            drawing.marker(palette.marker(line.name), *placed[-1], 3.5, style)
    _x_axis(drawing, x, height - bottom, x_label, height - 6)
    return drawing.markup()


@dataclass(frozen=True)
class DoseCurve:
    """Means over a dose: (dose, mean, low, high); limits None where there is no interval."""

    name: str
    points: Sequence[tuple[float, float, float | None, float | None]]


def dose_chart(
    curves: Sequence[DoseCurve],
    palette: Palette,
    x_label: str,
    y_label: str,
    form: Callable[[float], str],
) -> Markup:
    """Means with whiskers over a dose, joined by lines; each curve is named at its end below."""
    left, right, top = 50.0, 14.0, 26.0
    key = 16.0 * len(curves)
    bottom = 44.0 + key
    height = 190.0 + top + bottom
    corners = [point for curve in curves for point in curve.points]
    ends = [v for _, *values in corners for v in values if v is not None and math.isfinite(v)]
    xs = [dose for dose, *_ in corners]
    x = Scale(min(xs), max(xs), left, WIDTH - right)
    y = Scale(min([0.0, *ends]), max(ends) * 1.06 or 1.0, height - bottom, top)
    said = "; ".join(
        f"{c.name}: " + ", ".join(f"{form(mean)} at {tick(dose)}" for dose, mean, *_ in c.points)
        for c in curves
    )
    drawing = Drawing(WIDTH, height, f"{y_label} over {x_label}. {said}.")
    _y_axis(drawing, y, ticks(y.low, y.high, 5), left, WIDTH - right, form)
    drawing.text(4, 12, y_label, "axis-title")
    for place, curve in enumerate(curves):
        style, marker = palette.css(curve.name), palette.marker(curve.name)
        drawing.path([(x(dose), y(mean)) for dose, mean, *_ in curve.points], f"curve {style}")
        for dose, mean, low, high in curve.points:
            if low is not None and high is not None:
                drawing.line(x(dose), y(low), x(dose), y(high), f"whisker {style}")
            drawing.marker(marker, x(dose), y(mean), 4, f"mean {style}", form(mean))
        line = height - key + 16 * place + 6
        drawing.marker(marker, left, line - 4, 4, style)
        drawing.text(left + 12, line, curve.name, "tick")
    _x_axis(drawing, x, height - bottom, x_label, height - key - 10)
    return drawing.markup()


@dataclass(frozen=True)
class Estimate:
    """One row of a dot-and-whisker chart.

    Args:
        label: beside the row; empty where the legend says it.
        low, high: limits of the whisker; None or NaN where there is none.
        dots: single values behind the mean, such as one a seed.
        title: shown on hover.
    """

    label: str
    name: str
    mean: float
    low: float | None = None
    high: float | None = None
    dots: Sequence[float] = ()
    title: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    heading: str
    rows: Sequence[Estimate] = field(default_factory=tuple)


def dot_chart(
    groups: Sequence[Group],
    palette: Palette,
    x_label: str,
    limits: tuple[float, float],
    form: Callable[[float], str],
    label: str,
    zero: bool = False,
) -> Markup:
    """Means with whiskers, one row an estimate; what leaves `limits` ends in an arrow.

    Args:
        limits: range of the x axis.
        form: writes a tick's value.
        zero: draw a strong line at 0, for differences.
    """
    row_height, group_gap = 17.0, 9.0
    names = [row.label for group in groups for row in group.rows]
    headings = [group.heading for group in groups]
    # Headings stand in the left column too when rows have no labels of their own.
    own_labels = any(names)
    longest = max((len(text) for text in (names if own_labels else headings)), default=0)
    left = min(24 + CHARACTER * longest, 150.0)
    top, bottom, right = 8.0, 42.0, 16.0
    heading_rows = len(groups) if own_labels and any(headings) else 0
    count = sum(len(group.rows) for group in groups)
    height = top + bottom + row_height * (count + heading_rows) + group_gap * len(groups)
    x = Scale(*limits, left, WIDTH - right)
    drawing = Drawing(WIDTH, height, label)
    floor = height - bottom
    for mark in _x_marks(x):
        drawing.line(x(mark), top, x(mark), floor, "grid")
    if zero and limits[0] <= 0 <= limits[1]:
        drawing.line(x(0), top, x(0), floor, "zero")
    y = top
    for index, group in enumerate(groups):
        y += group_gap / 2
        if heading_rows:
            drawing.text(0, y + 12, group.heading, "heading")
            y += row_height
        elif group.heading:
            middle = y + row_height * len(group.rows) / 2
            drawing.text(left - 10, middle + 4, _fit(group.heading, left), "", "end")
        for row in group.rows:
            centre = y + row_height / 2
            if own_labels:
                drawing.text(left - 10, centre + 4, _fit(row.label, left), "", "end")
            _estimate(drawing, x, centre, row, palette)
            y += row_height
        y += group_gap / 2
        if not own_labels and index < len(groups) - 1:
            drawing.line(left, y, WIDTH - right, y, "grid")
    _x_axis(drawing, x, floor, x_label, height - 6, form)
    return drawing.markup()


def _estimate(drawing: Drawing, x: Scale, y: float, row: Estimate, palette: Palette) -> None:
    style = palette.css(row.name)
    low, high = row.low, row.high
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        ends = [min(max(limit, x.low), x.high) for limit in (low, high)]
        drawing.line(x(ends[0]), y, x(ends[1]), y, f"whisker {style}")
        for limit, end, lean in ((low, ends[0], 1), (high, ends[1], -1)):
            place = x(end)
            if limit != end:
                tip = [(place + 4 * lean, y - 3.5), (place, y), (place + 4 * lean, y + 3.5)]
                drawing.path(tip, f"arrow {style}")
    for dot in row.dots:
        if math.isfinite(dot) and x.low <= dot <= x.high:
            drawing.shape("circle", f"seed {style}", cx=x(dot), cy=y, r=2.4)
    if math.isfinite(row.mean):
        place = x(min(max(row.mean, x.low), x.high))
        drawing.marker(palette.marker(row.name), place, y, 4.6, f"mean {style}", row.title)


def bar(share: float, css: str = "c1", label: str = "") -> Markup:
    """A bar for a table's cell, `share` (0..1) of the cell wide."""
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}%"
    return Markup(
        '<svg class="bar" width="100%" height="12" role="img" aria-label="{}">'
        '<rect class="track" width="100%" height="100%" rx="2"/>'
        '<rect class="{}" width="{}" height="100%" rx="2"/></svg>'
    ).format(label, css, width)


def _y_axis(
    drawing: Drawing,
    y: Scale,
    marks: Sequence[float],
    left: float,
    right: float,
    form: Callable[[float], str],
) -> None:
    for mark in marks:
        drawing.line(left, y(mark), right, y(mark), "grid")
        drawing.text(left - 6, y(mark) + 4, form(mark), "tick", "end")


def _x_axis(
    drawing: Drawing,
    x: Scale,
    floor: float,
    label: str,
    label_y: float,
    form: Callable[[float], str] = tick,
) -> None:
    drawing.line(x.start, floor, x.stop, floor, "axis")
    for mark in _x_marks(x):
        drawing.line(x(mark), floor, x(mark), floor + 4, "axis")
        drawing.text(x(mark), floor + 17, form(mark), "tick", _anchor(x(mark), 3))
    drawing.text((x.start + x.stop) / 2, label_y, label, "axis-title", "middle")


def _x_marks(x: Scale) -> list[float]:
    return ticks(x.low, x.high, 5 if x.stop - x.start > 220 else 4)


def _decades(low: float, high: float) -> list[float]:
    """Logarithmic marks at 1, 2 and 5 times powers of ten; a wide range gets the powers alone."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    marks = [
        power + math.log10(factor)
        for power in range(math.floor(low), math.ceil(high) + 1)
        for factor in factors
    ]
    return [mark for mark in marks if low <= mark <= high]


def _anchor(place: float, characters: int) -> str:
    """Keep a centred text of so many characters inside the drawing."""
    half = characters * CHARACTER / 2
    if place + half > WIDTH:
        return "end"
    return "start" if place - half < 0 else "middle"


def _fit(text: str, room: float) -> str:
    most = int((room - 10) / (CHARACTER * 0.95))
    return text if len(text) <= most else text[: max(most - 1, 1)] + "…"
