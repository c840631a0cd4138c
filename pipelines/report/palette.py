"""One colour and one marker a name, the same in every chart of a report and page of a view.

A kind of caption has its own everywhere, whoever wrote it; arms take what is left, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from markupsafe import Markup

from pipelines.report.svg import MARKERS, swatch

COLOURS = 10
_ALWAYS = ("alt", "short", "descriptive")
# The kinds that this software writes or derives, each with its place; arms may be called so too.
_KINDS = (*_ALWAYS, "medium", "long", "tag", "human", "prose", "json", "tags")


class Palette:
    """Maps the names of arms and caption kinds to style-sheet classes `c0`..`c9` and markers."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._kinds = {kind: (place, place) for place, kind in enumerate(_KINDS)}
        self._others: dict[str, tuple[int, int]] = {}
        given = list(dict.fromkeys(names))
        taken = {self._kinds[name][0] for name in (*_ALWAYS, *given) if name in self._kinds}
        # Colours that none of `names` has come first; the next marker tells them from the kind's.
        free = [place for place in range(COLOURS) if place not in taken]
        self._free = (free[n] if n < len(free) else COLOURS + n - len(free) for n in count())
        for name in given:
            self._place(name)

    def _place(self, name: str) -> tuple[int, int]:
        """Numbers of the colour and of the marker; SOURCE/KIND is that kind."""
        kind = name.rpartition("/")[2]
        if kind in self._kinds:
            return self._kinds[kind]
        if name not in self._others:
            place = next(self._free)
            self._others[name] = place, place + 1
        return self._others[name]

    def css(self, name: str) -> str:
        """The class that sets the colour of `name`."""
        return f"c{self._place(name)[0] % COLOURS}"

    def marker(self, name: str) -> str:
        """The marker of `name`."""
        return MARKERS[self._place(name)[1] % len(MARKERS)]

    def label(self, name: str) -> Markup:
        """The name with its marker before it, as HTML."""
        mark = swatch(self.marker(name), self.css(name))
        return Markup('<span class="arm">{}<span>{}</span></span>').format(mark, name)
