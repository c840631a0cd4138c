"""Seeded caption writers: what the web, a short captioner and a descriptive captioner would say.

Every writer takes scenes and a seed, and the first captions are the same for every longer list.
`facts` reads all of them back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.world.facts import facts
from pipelines.world.palette import BACKGROUND_STYLES
from pipelines.world.scene import Scene, SceneObject
from pipelines.world.words import COUNTS, PLACES, RELATIONS, VOCABULARY, article

__all__ = [
    "ALT_SHARES",
    "SHORT_OPENINGS",
    "VOCABULARY",
    "AltText",
    "habitual_descriptive",
    "habitual_short",
    "made_up_scenes",
    "upsample",
    "write_alt",
    "write_descriptive",
    "write_short",
]

AltKind = Literal["good", "partial", "wrong", "boilerplate", "filename", "empty"]

ALT_SHARES: dict[AltKind, float] = {
    "good": 0.42,
    "partial": 0.18,
    "wrong": 0.15,
    "boilerplate": 0.10,
    "filename": 0.09,
    "empty": 0.06,
}
"""How often a page's alt text is of each kind; the shares sum to 1."""


SHORT_OPENINGS = ("{a}", "one {b}", "a picture of {a}", "an image of {a}", "there is {a}")


@dataclass(frozen=True)
class AltText:
    """A web text. `matches`: it says something about its picture and nothing false."""

    text: str
    kind: AltKind

    @property
    def matches(self) -> bool:
        return self.kind in ("good", "partial")


def write_short(scenes: Sequence[Scene], seed: int) -> list[str]:
    """Main subject only, 3 to 6 words: "a picture of a red ring"."""
    draws = np.random.default_rng([seed, 1]).random(len(scenes)).tolist()
    captions = []
    for scene, draw in zip(scenes, draws, strict=True):
        name = f"{scene.main.colour} {scene.main.shape}"
        opening = SHORT_OPENINGS[int(draw * len(SHORT_OPENINGS))]
        captions.append(opening.format(a=article(name), b=name))
    return captions


def write_descriptive(
    scenes: Sequence[Scene], seed: int, relation_share: float = 0.25
) -> list[str]:
    """Every object with size, colour, shape and place, and the background; at most 45 words.

    In about `relation_share` of the captions that allow it, one object is placed by a neighbour
    ("below the red ring") in place of its cell's name. Objects come in raster order.
    """
    draws = np.random.default_rng([seed, 2]).random((len(scenes), 4 + 9)).tolist()
    return [_describe(s, d, relation_share) for s, d in zip(scenes, draws, strict=True)]


def habitual_short(scenes: Sequence[Scene]) -> list[str]:
    """Short captions in one captioner's fixed wording: "a red ring"."""
    return [article(f"{scene.main.colour} {scene.main.shape}") for scene in scenes]


def habitual_descriptive(scenes: Sequence[Scene]) -> list[str]:
    """Descriptive captions in one captioner's fixed wording, for training it.

    Captioners have habits: a fine-tuned one words everything alike (a classifier tells captioners
    apart at 99.7%, arXiv 2602.22734), and DALL-E 3 names such modes as what a diffusion model
    overfits. So has this one: objects in raster order, each with its place, then the background.
    """
    return [_in_habit(scene) for scene in scenes]


def _in_habit(scene: Scene) -> str:
    things = ", ".join(
        f"{article(f'{o.size} {o.colour} {o.shape}')} in the {PLACES[scene.grid][o.cell]}"
        for o in scene.objects
    )
    return f"{things}, on a {scene.style} {scene.background} background"


def write_alt(
    scenes: Sequence[Scene], seed: int, shares: dict[AltKind, float] | None = None
) -> list[AltText]:
    """Messy web texts. A "wrong" one tells of another scene of the list and is false here.

    Raises ValueError where a wrong text is wanted and no other scene differs, or where the shares
    do not sum to 1.
    """
    chances = ALT_SHARES if shares is None else shares
    if not np.isclose(sum(chances.values()), 1):
        raise ValueError("the shares of alt texts must sum to 1.")
    kinds = list(chances)
    rng = np.random.default_rng([seed, 3])
    draws = rng.random((len(scenes), 8))
    edges = np.cumsum(list(chances.values()))[:-1]
    picks = np.searchsorted(edges, draws[:, 0], side="right").tolist()
    texts = []
    for i, (scene, pick, draw) in enumerate(zip(scenes, picks, draws.tolist(), strict=True)):
        kind = kinds[pick]
        subject = _stranger(scenes, i, draw[1]) if kind == "wrong" else scene
        texts.append(AltText(_alt(subject, kind, draw), kind))
    return texts


def upsample(prompts: Sequence[str], seed: int, grid: int = 2) -> list[str]:
    """Expand short prompts to the descriptive form, from nothing but what they say.

    Size, place and background are unsaid, so a seeded rule makes them up, as a language model that
    rewrites prompts would. Raises ValueError for a prompt without a colour and a shape.
    """
    return habitual_descriptive(made_up_scenes(prompts, seed, grid))


def made_up_scenes(prompts: Sequence[str], seed: int, grid: int = 2) -> list[Scene]:
    """The scenes that `upsample` words."""
    draws = np.random.default_rng([seed, 4]).random((len(prompts), 4)).tolist()
    backgrounds = ("white", "gray", "black", "tan")
    scenes = []
    for prompt, draw in zip(prompts, draws, strict=True):
        said = facts(prompt, grid).objects
        if len(said) != 1 or said[0].colour is None or said[0].shape is None:
            raise ValueError(f"the prompt {prompt!r} does not name one coloured shape.")
        size = said[0].size or ("small", "large")[int(draw[0] * 2)]
        cell = said[0].cell if said[0].cell is not None else int(draw[1] * grid * grid)
        thing = SceneObject(said[0].shape, said[0].colour, size, cell)
        background = backgrounds[int(draw[2] * len(backgrounds))]
        style = BACKGROUND_STYLES[int(draw[3] * 3)]
        scenes.append(Scene((thing,), background, style, grid))
    return scenes


def _describe(scene: Scene, draw: list[float], relation_share: float) -> str:
    relations = _relations(scene) if draw[0] < relation_share else []
    subject, relation = -1, ""
    if relations:
        subject, name, anchor = relations[int(draw[1] * len(relations))]
        other = scene.objects[anchor]
        called = "it" if anchor == subject - 1 else f"the {other.colour} {other.shape}"
        relation = f"{name} {called}"
    phrases = []
    for k, thing in enumerate(scene.objects):
        named = article(f"{thing.size} {thing.colour} {thing.shape}")
        place = PLACES[scene.grid][thing.cell]
        if k == subject:
            phrases.append(f"{named} {relation}")
        elif draw[4 + k] < 0.6:
            phrases.append(f"{named} in the {place}")
        elif draw[4 + k] < 0.8:
            phrases.append(f"{named} at the {place}")
        else:
            phrases.append(f"in the {place} {named}")
    things = ", ".join(phrases)
    ground = f"{scene.style} {scene.background}"
    template = int(draw[2] * 5)
    if template == 0:
        return f"{things}, on a {ground} background"
    if template == 1:
        return f"on a {ground} background, {things}"
    if template == 2:
        noun = "shape" if len(phrases) == 1 else "shapes"
        return f"{COUNTS[len(phrases)]} {noun} on a {ground} background: {things}"
    if template == 3:
        return f"{things}. the background is {ground}"
    return f"a {ground} background with {things}"


def _relations(scene: Scene) -> list[tuple[int, str, int]]:
    """All (subject, relation, anchor) between next cells whose anchor's name is unambiguous."""
    names = [(o.colour, o.shape) for o in scene.objects]
    at = {divmod(o.cell, scene.grid): k for k, o in enumerate(scene.objects)}
    found = []
    for (row, column), anchor in at.items():
        if names.count(names[anchor]) > 1:
            continue
        for relation, (down, right) in RELATIONS.items():
            subject = at.get((row + down, column + right))
            if subject is not None:
                found.append((subject, relation, anchor))
    return found


def _stranger(scenes: Sequence[Scene], i: int, draw: float) -> Scene:
    """Another scene of the list none of whose objects `scenes[i]` shows."""
    mine = {(o.colour, o.shape) for o in scenes[i].objects}
    start = int(draw * len(scenes))
    for step in range(len(scenes)):
        other = scenes[(start + step) % len(scenes)]
        if not mine & {(o.colour, o.shape) for o in other.objects}:
            return other
    raise ValueError("a wrong text needs another scene in the list, with other objects.")


def _alt(scene: Scene, kind: AltKind, draw: list[float]) -> str:
    if kind == "empty":
        return ""
    if kind == "filename":
        number = f"{int(draw[2] * 10000):04d}"
        names = (f"IMG_{number}.JPG", f"dsc{number}.jpg", f"screenshot-{number}.png")
        return names[int(draw[3] * len(names))]
    if kind == "boilerplate":
        of = 2 + int(draw[2] * 8)
        slogans = (
            f"image {1 + int(draw[3] * of)} of {of} - buy now",
            "click to enlarge",
            "Free shipping | best price",
            "home page banner",
            f"thumbnail {int(draw[3] * 100)}",
            "Stock photo for download",
            f"sale {10 * (1 + int(draw[3] * 8))}% off",
        )
        return slogans[int(draw[4] * len(slogans))]
    things = sorted(scene.objects, key=lambda o: o is not scene.main)
    main = things[0]
    if kind == "partial":
        texts = (
            f"{main.colour} shape",
            f"{main.colour} clip art",
            f"{main.shape} logo",
            f"{main.shape} vector",
            f"{main.colour} {main.shape}",
        )
        return _dress(texts[int(draw[4] * len(texts))], draw)
    listed = [f"{o.colour} {o.shape}" for o in things[: 1 + int(draw[2] * 3)]]
    text = " and ".join(listed)
    if draw[3] < 0.3:
        text += f" on {scene.background}"
    elif draw[3] < 0.6:
        text += (" clip art", " stock photo", " vector", " wallpaper")[int(draw[4] * 4)]
    return _dress(text, draw)


def _dress(text: str, draw: list[float]) -> str:
    """The web's habits with a true word: file names, capitals, shouting."""
    if draw[5] < 0.1:
        return text.replace(" ", "_") + ".jpg"
    if draw[5] < 0.25:
        return text.title()
    if draw[5] < 0.32:
        return text.upper() + " - buy now"
    if draw[5] < 0.4:
        return f"image {1 + int(draw[6] * 9)}: {text}"
    return text
