"""Training and held-out examples for the small models: pictures as a curator would store them.

A picture is rendered at a web size, spoilt or marked with some chance, compressed, decoded, and
scaled down to 64 px, often through another stored size on the way.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.world.defects import UGLY, Picture, overlay, sticker
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig
from pipelines.world.web import SIDES

INPUT_SIDE = 64
GOOD_SCORE, UGLY_SCORE = 7.0, 2.5
"""Aesthetic scores, on LAION's scale of 1 to 10, of a clean picture and of a fully spoilt one."""

_STORED_SIDES = (0, 0, 32, 48, 64, 96, 128, 256)  # 0: straight to the model


@dataclass(frozen=True)
class Pictures:
    """pixels uint8 (N, 64, 64, 3); aesthetic float32 (N,) 1..10; unsafe bool (N,); spoiler (N,)
    str, the name of what makes it ugly, "" for good pictures."""

    pixels: NDArray[np.uint8]
    aesthetic: NDArray[np.float32]
    unsafe: NDArray[np.bool_]
    spoiler: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.pixels)


def stored_pictures(
    scenes: Sequence[Scene],
    config: WorldConfig,
    seed: int,
    ugly: float = 0.2,
    unsafe: float = 0.12,
    mild: bool = True,
) -> Pictures:
    """Pictures of scenes after the web and the store had their way with them.

    ugly, unsafe: chance of a spoiler and of a sticker, apart from each other. mild: half of the
    spoilt ones are spoilt in part, with a score in between. About 2 ms of CPU a picture.
    """
    n = len(scenes)
    rng = np.random.default_rng([seed, 20])
    side = rng.choice(SIDES, n)
    spoiler = np.where(rng.random(n) < ugly, rng.choice(list(UGLY), n), "")
    marked = rng.random(n) < unsafe
    strength = np.where(spoiler != "", 1.0, 0.0)
    if mild:
        partly = (spoiler != "") & (rng.random(n) < 0.5)
        strength[partly] = rng.uniform(0.35, 1.0, int(partly.sum()))
    labelled = rng.random(n) < 0.03
    pixels = np.empty((n, INPUT_SIDE, INPUT_SIDE, 3), np.uint8)
    for extent in np.unique(side):
        batch = np.flatnonzero(side == extent)
        drawn = render([scenes[i] for i in batch.tolist()], config, int(extent))
        for row, picture in zip(batch.tolist(), drawn, strict=True):
            own = np.random.default_rng([seed, 21, row])
            if marked[row]:
                picture = sticker(picture, own)
            if labelled[row]:
                picture = overlay(picture, own)
            if spoiler[row]:
                spoilt = UGLY[str(spoiler[row])](picture, own)
                mixed = picture + strength[row] * (spoilt.astype(np.float32) - picture)
                picture = mixed.astype(np.uint8)
            pixels[row] = _store(picture, own)
    aesthetic = (GOOD_SCORE + strength * (UGLY_SCORE - GOOD_SCORE)).astype(np.float32)
    return Pictures(pixels, aesthetic, marked, spoiler.astype(str))


def corrupted(scenes: Sequence[Scene], config: WorldConfig, seed: int) -> list[Scene]:
    """Each scene with one thing wrong: a colour, a shape or a place of one object."""
    rng = np.random.default_rng([seed, 22])
    draws = rng.random((len(scenes), 4)).tolist()
    return [_corrupt(s, config, d) for s, d in zip(scenes, draws, strict=True)]


def _corrupt(scene: Scene, config: WorldConfig, draw: list[float]) -> Scene:
    k = int(draw[0] * len(scene.objects))
    thing = scene.objects[k]
    free = sorted(set(range(config.cells)) - {o.cell for o in scene.objects})
    if draw[1] < 0.4:
        wrong = replace(thing, colour=_another(config.colours, thing.colour, draw[2]))
    elif draw[1] < 0.8 or not free:
        wrong = replace(thing, shape=_another(config.shapes, thing.shape, draw[2]))
    else:
        wrong = replace(thing, cell=free[int(draw[2] * len(free))])
    objects = [*scene.objects[:k], wrong, *scene.objects[k + 1 :]]
    return replace(scene, objects=tuple(sorted(objects, key=lambda o: o.cell)))


def _another(names: tuple[str, ...], name: str, draw: float) -> str:
    others = [other for other in names if other != name]
    return others[int(draw * len(others))]


def _store(picture: Picture, rng: np.random.Generator) -> Picture:
    image = _compress(Image.fromarray(picture), rng)
    stored = int(rng.choice(_STORED_SIDES))
    if stored:
        method = (Image.Resampling.BOX, Image.Resampling.BICUBIC)[int(rng.integers(2))]
        image = image.resize((stored, stored), method)
        if rng.random() < 0.5:
            image = _compress(image, rng)
    return np.asarray(image.resize((INPUT_SIDE, INPUT_SIDE), Image.Resampling.BICUBIC))


def _compress(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    draw = rng.random()
    if draw < 0.25:
        return image
    stream = io.BytesIO()
    if draw < 0.85:
        image.save(stream, "JPEG", quality=int(rng.integers(60, 96)))
    else:
        image.save(stream, "WEBP", quality=int(rng.integers(70, 96)), method=0)
    return Image.open(stream).convert("RGB")
