"""Classes of attribute words: a word of a class may stand in the place of any other of it.

General English and the synthetic world's words. Only words that are no other part of speech in
most captions are here; "rose", "gold leaf" and "the left turn" are not told apart. "One" and the
articles are left out, because a noun's number hangs on them.
"""

from __future__ import annotations

from collections.abc import Mapping

_CLASSES: Mapping[str, str] = {
    "colour": "red green blue yellow orange purple pink cyan lime brown teal magenta violet "
    "turquoise maroon crimson scarlet indigo lavender navy golden silver",
    "neutral colour": "white gray grey black tan slate cream beige ivory charcoal",
    "lightness": "dark bright pale",
    "size": "small medium large tiny little big huge massive giant enormous",
    "length": "long short",
    "height": "tall low",
    "width": "wide narrow",
    "shape": "circle square triangle cross ring bar moon hourglass frame diamond pillar star "
    "heart hexagon pentagon oval rectangle cube sphere cylinder cone pyramid",
    "shapes": "circles squares triangles crosses rings bars moons hourglasses frames diamonds "
    "pillars stars hearts hexagons pentagons ovals rectangles cubes spheres cylinders cones "
    "pyramids",
    "form": "round rectangular triangular circular hexagonal spherical cylindrical curved pointed",
    "pattern": "plain gradient striped checkered spotted dotted floral",
    "corner": "top-left top-right bottom-left bottom-right top-center bottom-center center-left "
    "center-right center",
    "side": "left right",
    "upper or lower": "top bottom",
    "height of place": "upper lower",
    "above or below": "above below",
    "depth": "front back",
    "where": "indoors outdoors",
    "number": "two three four five six seven eight nine ten eleven twelve",
    "material": "wooden metal metallic plastic glass stone leather concrete brick marble ceramic "
    "rubber paper steel wool cotton",
    "state": "open closed empty full wet dry",
    "age": "old young new",
}

CLASS_OF: Mapping[str, str] = {
    word: name for name, words in _CLASSES.items() for word in words.split()
}
"""Word -> its class; a word is of one class."""
