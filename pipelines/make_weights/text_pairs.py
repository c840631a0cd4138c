"""Pairs of texts that say the same in two wordings: what the world's text encoder learns from.

Full scenes, scenes with clauses left out, single attributes left out, short captions and the web's
alt texts, each in a randomly chosen wording and written again in another one. No wording is more
frequent than another, every colour stands with every shape, and nothing here sees a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from pipelines.world.facts import Facts, ObjectFact, facts, scene_facts
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.wordings import DESCRIPTIVE, SHORT, Writer
from pipelines.world.words import PLACES, article
from pipelines.world.writers import write_alt

T = TypeVar("T")

FORMS = ("descriptive", "partial", "short", "alt")
_SHARES = (0.45, 0.25, 0.1, 0.2)
RICH_SHARE = 0.2
"""Of the scenes that have more words, cells and objects than the demo's world."""


@dataclass(frozen=True)
class TextPair:
    """A text, and the same facts in the wording that is asked for."""

    source: str
    target: str
    form: str
    source_wording: str
    target_wording: str
    grid: int = 2


def as_prose(said: Facts, grid: int) -> str:
    """Facts in the captioner's wording, as far as they are said."""
    clauses = []
    for thing in said.objects:
        name = " ".join(filter(None, (thing.size, thing.colour, thing.shape or "shape")))
        clause = article(name)
        if thing.cell is not None:
            clause += f" in the {PLACES[grid][thing.cell]}"
        clauses.append(clause)
    if said.background or said.style:
        ground = " ".join(filter(None, (said.style, said.background)))
        clauses.append(f"on {article(ground)} background")
    return ", ".join(clauses)


def as_tags(said: Facts, grid: int) -> str:
    """Facts as a list of tags: "small red ring, top-left, plain white background"."""
    tags = []
    for thing in said.objects:
        tags.append(" ".join(filter(None, (thing.size, thing.colour, thing.shape))))
        if thing.cell is not None:
            tags.append(PLACES[grid][thing.cell])
    if said.background or said.style:
        tags.append(" ".join(filter(None, (said.style, said.background, "background"))))
    return ", ".join(tags)


def as_structured(said: Facts, grid: int) -> str:
    """Facts as a structured caption, serialised."""
    record: dict[str, Any] = {"objects": []}
    for thing in said.objects:
        row: dict[str, Any] = {"name": thing.shape or "shape"}
        if thing.size or thing.colour:
            row["attributes"] = [word for word in (thing.size, thing.colour) if word]
        if thing.cell is not None:
            row["place"] = PLACES[grid][thing.cell]
        record["objects"].append(row)
    if said.background or said.style:
        record["background"] = " ".join(filter(None, (said.style, said.background)))
    return json.dumps(record)


_OF_FACTS: dict[str, Callable[[Facts, int], str]] = {
    "captioner": as_prose,
    "tags": as_tags,
    "json": as_structured,
}


def _of_scenes(write: Callable[[Facts, int], str]) -> Writer:
    return lambda scenes, seed: [write(scene_facts(scene), scene.grid) for scene in scenes]


FULL: dict[str, Writer] = {
    **DESCRIPTIVE,
    "tags": _of_scenes(as_tags),
    "json": _of_scenes(as_structured),
}
SHORT_FORMS: dict[str, Writer] = {
    **SHORT,
    "tags": lambda scenes, seed: [as_tags(_main(scene), scene.grid) for scene in scenes],
    "json": lambda scenes, seed: [as_structured(_main(scene), scene.grid) for scene in scenes],
}
WORDINGS = (*FULL, "alt")
"""All wordings that a text can be asked for in; "alt" is an alt text as it stands."""


def text_pairs(n: int, seed: int) -> list[TextPair]:
    """`n` pairs in random order."""
    rng = np.random.default_rng([seed, 40])
    counts = rng.multinomial(n, _SHARES)
    pairs: list[TextPair] = []
    for rich, world in enumerate((WorldConfig.small(), WorldConfig.rich())):
        for number, (form, count) in enumerate(zip(FORMS, counts.tolist(), strict=True)):
            of_rich = round(RICH_SHARE * count)
            own = of_rich if rich else count - of_rich
            scenes = sample_scenes(world, own, seed * 1000 + rich * 10 + number, "any")
            if scenes:
                pairs += _PAIRS[form](scenes, rng, int(rng.integers(2**31)))
    return [pairs[k] for k in rng.permutation(len(pairs))]


def held_out_pairs(n: int, seed: int) -> dict[str, list[TextPair]]:
    """`n` pairs from each "form/wording" to the captioner's wording; seeds of no training."""
    world = WorldConfig.small()
    scenes = sample_scenes(world, n, seed, "any")
    pairs = {}
    for form, writers in (("descriptive", FULL), ("short", SHORT_FORMS)):
        targets = writers["captioner"](scenes, seed)
        for wording, write in writers.items():
            pairs[f"{form}/{wording}"] = [
                TextPair(source, target, form, wording, "captioner")
                for source, target in zip(write(scenes, seed), targets, strict=True)
            ]
    alts = [alt.text for alt in write_alt(scenes, seed)]
    told = [(text, facts(text)) for text in alts]
    pairs["alt/alt"] = [
        TextPair(text, as_prose(said, world.grid), "alt", "alt", "captioner")
        for text, said in told
        if said.objects
    ]
    return pairs


def _full(scenes: Sequence[Scene], rng: np.random.Generator, seed: int) -> list[TextPair]:
    # Half of the scenes lose objects, so that a text says nothing of what is not in it.
    scenes = [
        replace(scene, objects=_some(scene.objects, rng)) if cut else scene
        for scene, cut in zip(scenes, rng.random(len(scenes)) < 0.3, strict=True)
    ]
    return _paired(FULL, scenes, "descriptive", rng, seed)


def _short(scenes: Sequence[Scene], rng: np.random.Generator, seed: int) -> list[TextPair]:
    return _paired(SHORT_FORMS, scenes, "short", rng, seed)


def _paired(
    writers: dict[str, Writer],
    scenes: Sequence[Scene],
    form: str,
    rng: np.random.Generator,
    seed: int,
) -> list[TextPair]:
    names = list(writers)
    sources = {name: write(scenes, seed) for name, write in writers.items()}
    targets = {name: write(scenes, seed + 1) for name, write in writers.items()}
    picks = rng.integers(len(names), size=(len(scenes), 2)).tolist()
    return [
        TextPair(
            sources[names[a]][i], targets[names[b]][i], form, names[a], names[b], scenes[i].grid
        )
        for i, (a, b) in enumerate(picks)
    ]


def _partial(scenes: Sequence[Scene], rng: np.random.Generator, seed: int) -> list[TextPair]:
    names = list(_OF_FACTS)
    pairs = []
    for scene in scenes:
        truth = scene_facts(scene)
        said = Facts(
            tuple(_forgotten(thing, rng) for thing in _some(truth.objects, rng)),
            truth.background if rng.random() < 0.6 else None,
            truth.style if rng.random() < 0.6 else None,
        )
        a, b = (names[k] for k in rng.integers(len(names), size=2))
        source, target = (_OF_FACTS[name](said, scene.grid) for name in (a, b))
        pairs.append(TextPair(source, target, "partial", a, b, scene.grid))
    return pairs


def _alt(scenes: Sequence[Scene], rng: np.random.Generator, seed: int) -> list[TextPair]:
    names = list(_OF_FACTS)
    pairs = []
    for scene, alt in zip(scenes, write_alt(scenes, seed), strict=True):
        said = facts(alt.text, scene.grid)
        # What the web says beside facts ("wallpaper") is kept as well.
        if said.objects and rng.random() < 0.5:
            wording = names[rng.integers(len(names))]
            target = _OF_FACTS[wording](said, scene.grid)
        else:
            wording, target = "alt", alt.text
        pairs.append(TextPair(alt.text, target, "alt", "alt", wording, scene.grid))
    return pairs


_PAIRS = {"descriptive": _full, "partial": _partial, "short": _short, "alt": _alt}


def _main(scene: Scene) -> Facts:
    return Facts((ObjectFact(scene.main.shape, scene.main.colour),))


def _some(objects: tuple[T, ...], rng: np.random.Generator) -> tuple[T, ...]:
    """A random part, at least one."""
    kept = rng.random(len(objects)) < rng.uniform(0.3, 1)
    if not kept.any():
        kept[rng.integers(len(objects))] = True
    return tuple(thing for thing, keep in zip(objects, kept, strict=True) if keep)


def _forgotten(thing: ObjectFact, rng: np.random.Generator) -> ObjectFact:
    """One object of whom something may be unsaid, but never both colour and shape."""
    keep = rng.random(4) < 0.7
    return ObjectFact(
        thing.shape if keep[0] or not keep[1] else None,
        thing.colour if keep[1] else None,
        thing.size if keep[2] else None,
        thing.cell if keep[3] else None,
    )
