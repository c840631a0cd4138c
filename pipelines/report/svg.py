"""A pencil for inline SVG: escapes every text, and speaks to a screen reader through one label.

Colours come from the page's style sheet through classes (`c0`..`c9` for arms, `axis`, `grid`, ...),
so that a chart follows the light and the dark scheme; no style attribute is ever written, which
lets the page forbid inline styles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

# Rough width of a character of the charts' 12-unit sans serif, to leave room for labels.
CHARACTER = 6.4

# Marker outlines of radius 1, one a series, so that colour never carries meaning alone.
OUTLINES = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -1.15), (1.1, 0.8), (-1.1, 0.8)],
    "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    "down": [(0, 1.15), (1.1, -0.8), (-1.1, -0.8)],
    "plus": [
        *((-0.4, -1.15), (0.4, -1.15), (0.4, -0.4), (1.15, -0.4), (1.15, 0.4), (0.4, 0.4)),
        *((0.4, 1.15), (-0.4, 1.15), (-0.4, 0.4), (-1.15, 0.4), (-1.15, -0.4), (-0.4, -0.4)),
    ],
}
MARKERS = ("circle", *OUTLINES)


@dataclass(frozen=True)
class Scale:
    """The linear map of a value range onto a pixel range."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About `about` round values inside [low, high], in steps of 1, 2, 2.5 or 5 times 10^n."""
    if not high > low:
        return [low]
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


class Drawing:
    """An SVG of `width` x `height` units that scales with its box.

    Args:
        label: what the picture says, for whoever cannot see it.
        fixed: keep the units as CSS pixels instead of filling the box.
    """

    def __init__(self, width: float, height: float, label: str, fixed: bool = False) -> None:
        size = Markup(' width="{}" height="{}"').format(_short(width), _short(height))
        self._parts: list[Markup] = [
            Markup('<svg viewBox="0 0 {} {}"{} role="img" aria-label="{}" class="chart">').format(
                _short(width), _short(height), size if fixed else "", label
            )
        ]

    def shape(self, tag: str, css: str, title: str = "", **attributes: float | str) -> None:
        """One element; underscores in attribute names become hyphens. `title` shows on hover."""
        pairs = Markup("").join(
            Markup(' {}="{}"').format(name.replace("_", "-"), _short(value))
            for name, value in attributes.items()
        )
        inner = Markup("<title>{}</title>").format(title) if title else Markup("")
        self._parts.append(
            Markup('<{0} class="{1}"{2}>{3}</{0}>').format(Markup(tag), css, pairs, inner)
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self.shape("line", css, x1=x1, y1=y1, x2=x2, y2=y2)

    def rectangle(
        self, x: float, y: float, width: float, height: float, css: str, title: str = ""
    ) -> None:
        """A filled rectangle; negative sizes are drawn as nothing."""
        self.shape("rect", css, title, x=x, y=y, width=max(width, 0.0), height=max(height, 0.0))

    def path(self, corners: list[tuple[float, float]], css: str, title: str = "") -> None:
        """An open line through `corners`."""
        if corners:
            steps = "L".join(f"{_short(x)} {_short(y)}" for x, y in corners)
            self.shape("path", css, title, d=f"M{steps}")

    def text(self, x: float, y: float, text: str, css: str = "", anchor: str = "start") -> None:
        """A text whose baseline starts, is centred, or ends ("start", "middle", "end") at x."""
        self._parts.append(
            Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(
                _short(x), _short(y), anchor, css, escape(text)
            )
        )

    def marker(self, kind: str, x: float, y: float, r: float, css: str, title: str = "") -> None:
        """A mark of one of the kinds in MARKERS, about `r` units in radius."""
        if kind == "circle":
            self.shape("circle", css, title, cx=x, cy=y, r=r)
            return
        corners = " ".join(
            f"{_short(x + r * dx)},{_short(y + r * dy)}" for dx, dy in OUTLINES[kind]
        )
        self.shape("polygon", css, title, points=corners)

    def markup(self) -> Markup:
        """The finished element."""
        return Markup("").join([*self._parts, Markup("</svg>")])


def swatch(kind: str, css: str) -> Markup:
    """A marker on its own, for legends; a screen reader gets the text beside it instead."""
    drawing = Drawing(14, 14, "", fixed=True)
    drawing.marker(kind, 7, 7, 5, css)
    return Markup(
        drawing.markup().replace('role="img" aria-label="" class="chart"', 'aria-hidden="true"')
    )


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".")
