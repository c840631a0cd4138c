"""The same facts in other words: wordings of a scene beside those of its captioner.

    captioner    one captioner's habit (writers.habitual_descriptive, habitual_short)
    varied       other sentences of the same words (writers.write_descriptive, write_short)
    place-first  where before what: "top-left: small red ring; striped white background"
    typed        as a person types: "tiny red ring top left, white stripes"

No wording says more or less than another. `facts` reads all of them back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.world.scene import Scene, SceneObject
from pipelines.world.words import PLACES
from pipelines.world.writers import (
    habitual_descriptive,
    habitual_short,
    write_descriptive,
    write_short,
)
from recaption.structured.schema import Structured, StructuredObject, serialize

Writer = Callable[[Sequence[Scene], int], list[str]]

_HEADED = ("{p}: {n}", "{p}: {n}", "{p} {n}", "{p} - {n}", "the {p} has {n}", "at the {p}: {n}")
_PLACED = (
    "{s} {c} {o} {p}",
    "{s} {c} {o} {p}",
    "{s} {c} {o} in {p}",
    "{p} {s} {c} {o}",
    "{c} {o} {s} {p}",
    "{c} {o} {p} {s}",
    "{s} {o} {c} {p}",
)
_TYPED_GROUNDS = (
    "{s} {g} background",
    "{g} {s} background",
    "{s} {g} bg",
    "{s} {g} backdrop",
    "bg {g} {s}",
    "background {s} {g}",
    "on {s} {g}",
    "{g} {s}",
)
_JOINTS = (" and ", ", ", ", ", " + ", " & ", "; ")
_SIZES = {"small": ("small", "small", "tiny", "little"), "large": ("big", "big", "large", "huge")}
_STYLES = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripes", "stripy"),
    "checkered": ("checkered", "checks"),
}
_GROUNDS = {"gray": ("gray", "grey")}
_ROWS = {"top": ("top", "top", "upper"), "bottom": ("bottom", "bottom", "lower")}
_TYPED_SHORT = (
    "{c} {s}",
    "pic of {c} {s}",
    "{c} {s} pic",
    "just {c} {s}",
    "{s} in {c}",
    "need {c} {s}",
    "draw {c} {s}",
    "{c} colored {s}",
    "single {c} {s}",
    "1 {c} {s}",
)


def place_first(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Every object behind its place, the background first or last; objects in raster order."""
    captions = []
    for scene, draw in zip(scenes, _draws(len(scenes), seed, 5, 4), strict=True):
        head = _of(_HEADED, draw[0])
        parts = [
            head.format(p=PLACES[scene.grid][o.cell], n=f"{o.size} {o.colour} {o.shape}")
            for o in scene.objects
        ]
        ground = f"{scene.style} {scene.background}"
        ground = _of((f"{ground} background", f"background: {ground}"), draw[1])
        parts.insert(0 if draw[2] < 0.3 else len(parts), ground)
        captions.append(_of(("; ", "; ", ", ", ". "), draw[3]).join(parts))
    return captions


def typed(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Lower case, no articles, the order of the day, everyday words for sizes and grounds."""
    captions = []
    for scene, draw in zip(scenes, _draws(len(scenes), seed, 6, 8 + 9 * 6), strict=True):
        phrases = [
            _typed_object(thing, scene.grid, draw[8 + 6 * k : 14 + 6 * k])
            for k, thing in enumerate(scene.objects)
        ]
        # Raster order, the main object first, or from the end.
        order = _of(("raster", "raster", "main", "back"), draw[0])
        if order == "main":
            phrases.insert(0, phrases.pop(scene.objects.index(scene.main)))
        elif order == "back":
            phrases.reverse()
        ground = _of(_TYPED_GROUNDS, draw[1]).format(
            s=_of(_STYLES.get(scene.style, (scene.style,)), draw[2]),
            g=_of(_GROUNDS.get(scene.background, (scene.background,)), draw[3]),
        )
        things = _of(_JOINTS, draw[4]).join(phrases)
        # "on plain white" may follow without a comma, and leads nothing.
        if ground.startswith("on "):
            captions.append(things + (" " if draw[5] < 0.5 else ", ") + ground)
        elif draw[5] < 0.25:
            captions.append(f"{ground}, {things}")
        else:
            captions.append(f"{things}, {ground}")
    return captions


def typed_short(scenes: Sequence[Scene], seed: int) -> list[str]:
    """The main object alone, as a person types: "pic of red ring"."""
    return [
        _of(_TYPED_SHORT, draw[0]).format(c=scene.main.colour, s=scene.main.shape)
        for scene, draw in zip(scenes, _draws(len(scenes), seed, 7, 1), strict=True)
    ]


DESCRIPTIVE: dict[str, Writer] = {
    "captioner": lambda scenes, seed: habitual_descriptive(scenes),
    "varied": write_descriptive,
    "place-first": place_first,
    "typed": typed,
}
"""Wording -> writer of descriptive captions."""

SHORT: dict[str, Writer] = {
    "captioner": lambda scenes, seed: habitual_short(scenes),
    "varied": write_short,
    "typed": typed_short,
}
"""Wording -> writer of short captions."""


def structured(scene: Scene) -> Structured:
    """All of a scene in the form of structured captions."""
    objects: list[StructuredObject] = [
        {"name": o.shape, "attributes": [o.size, o.colour], "place": PLACES[scene.grid][o.cell]}
        for o in scene.objects
    ]
    return {"objects": objects, "background": f"{scene.style} {scene.background}"}


def as_json(scenes: Sequence[Scene]) -> list[str]:
    """Structured captions; as prose they are the captioner's own wording."""
    return [serialize(structured(scene)) for scene in scenes]


def _typed_object(thing: SceneObject, grid: int, draw: list[float]) -> str:
    row, _, column = PLACES[grid][thing.cell].partition("-")
    place = " ".join([_of(_ROWS.get(row, (row,)), draw[0]), *([column] if column else [])])
    size = _of(_SIZES.get(thing.size, (thing.size,)), draw[1])
    return _of(_PLACED, draw[2]).format(s=size, c=thing.colour, o=thing.shape, p=place)


def _draws(n: int, seed: int, stream: int, width: int) -> list[list[float]]:
    """Numbers in 0..1, (n, width); the first rows are the same for every larger n."""
    return np.random.default_rng([seed, stream]).random((n, width)).tolist()  # type: ignore[no-any-return]


def _of(choices: Sequence[str], draw: float) -> str:
    return choices[int(draw * len(choices))]
