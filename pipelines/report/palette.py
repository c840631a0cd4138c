"""One colour and one marker a name, the same in every chart of a report."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from pipelines.report.svg import MARKERS, swatch

# These have the same colour in every report, as arms and as kinds of caption.
_FIXED = ("alt", "short", "descriptive")
COLOURS = 10


class Palette:
    """Maps the names of arms and caption kinds to style-sheet classes `c0`..`c9` and markers."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._order: list[str] = list(_FIXED)
        self._order += [name for name in dict.fromkeys(names) if name not in self._order]

    def _index(self, name: str) -> int:
        if name not in self._order:
            self._order.append(name)
        return self._order.index(name)

    def css(self, name: str) -> str:
        """The class that sets the colour of `name`."""
        return f"c{self._index(name) % COLOURS}"

    def marker(self, name: str) -> str:
        """The marker of `name`."""
        return MARKERS[self._index(name) % len(MARKERS)]

    def label(self, name: str) -> Markup:
        """The name with its marker before it, as HTML."""
        mark = swatch(self.marker(name), self.css(name))
        return Markup('<span class="arm">{}<span>{}</span></span>').format(mark, name)
