"""The exact parser: reads a picture back into a scene by analysis by synthesis.

A picture is averaged to 16 pixels a cell and explained in two steps. The background is the one of
the world's few whose pixels fit best where no object can ever reach. Then, cell by cell, the parser
tries every (shape, size, offset, colour) and keeps the one that removes most of the squared error
that the background alone leaves. A cell is

- empty, if that error, less the noise seen on the background, is under a third of the faintest
  object's;
- an object, if the best explanation removes over 60% of it (`MIN_EXPLAINED`);
- junk (malformed) otherwise: something stands there, but nothing of this world.

These thresholds call many a soft or shifted object junk, so `read` gives a second reading beside
this one, without any: whatever is nearest in squared error, nothing or one of the objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.world.palette import OBJECT_COLOURS
from pipelines.world.render import area_matrix, backgrounds, templates
from pipelines.world.scene import Scene, SceneArrays, WorldConfig, scenes_from_arrays

Floats = NDArray[np.float32]

CELL_PIXELS = 16
MIN_EXPLAINED = 0.6
MIN_ENERGY = 1 / 3
# Background error above this (sRGB levels, squared) is no noise: it is a wrong picture.
MAX_NOISE = 30.0**2
_CHUNK = 256


@dataclass(frozen=True)
class ParsedScene:
    """What a picture shows: well-formed objects, and cells that hold something malformed."""

    scene: Scene
    junk: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """Two readings of the same N pictures: `strict` with junk, `forced` to the nearest of all."""

    strict: SceneArrays
    forced: SceneArrays

    def __len__(self) -> int:
        return len(self.strict)


@dataclass(frozen=True)
class _Synthesis:
    """Everything the parser compares with, for one world and resolution.

    alphas (cells, K, P), grounds (B, cells, P, 3), energy (B, cells, K, colours) = the squared
    error that an object leaves on the bare background, faintest (B,), border (S, S) bool = pixels
    that no object reaches; P = CELL_PIXELS^2 and K counts (size, shape, dy, dx).
    """

    alphas: Floats
    grounds: Floats
    energy: Floats
    faintest: Floats
    border: NDArray[np.bool_]
    whole_grounds: Floats


@lru_cache(maxsize=8)
def _synthesis(config: WorldConfig, resolution: int) -> _Synthesis:
    side = config.grid * CELL_PIXELS
    shrink = area_matrix(resolution, side)
    windows, drawn = templates(config, resolution)
    alphas, reach = [], np.zeros((side, side), np.float32)
    for cell, (w, alpha) in enumerate(zip(windows, drawn, strict=True)):
        rows, columns = shrink[:, w.top : w.bottom], shrink[:, w.left : w.right]
        whole = np.einsum("yh,khw,xw->kyx", rows, alpha, columns, optimize=True)
        reach = np.maximum(reach, whole.max(0))
        y, x = (int(v) * CELL_PIXELS for v in divmod(cell, config.grid))
        alphas.append(whole[:, y : y + CELL_PIXELS, x : x + CELL_PIXELS].reshape(len(alpha), -1))
    grounds = np.einsum(
        "yh,bhwc,xw->byxc", shrink, backgrounds(config, resolution), shrink, optimize=True
    )
    a = np.stack(alphas)
    b = _cells(grounds, config.grid)
    paint = _paints(config)
    a2 = a * a
    energy = (
        np.einsum("mkp,bmp->bmk", a2, (b * b).sum(-1))[..., None]
        - 2 * np.einsum("mkp,bmpc,jc->bmkj", a2, b, paint, optimize=True)
        + a2.sum(-1)[..., None] * (paint * paint).sum(-1)
    )
    return _Synthesis(a, b, energy, energy.min((1, 2, 3)), reach < 0.02, grounds)


def parse_arrays(images: NDArray[np.uint8], config: WorldConfig) -> SceneArrays:
    """Read pictures back: images uint8 (N, R, R, 3) -> N rows of `SceneArrays`, junk marked."""
    return read(images, config).strict


def read(images: NDArray[np.uint8], config: WorldConfig) -> Reading:
    """Both readings of uint8 (N, R, R, 3) images.

    Raises ValueError on any other dtype or shape. Cost grows with N * cells * templates * colours;
    about 6,000 pictures/s/core in the small world.
    """
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:]
        != (
            *(images.shape[1],) * 2,
            3,
        )
    ):
        raise ValueError(f"images must be uint8 (N, R, R, 3), not {images.dtype} {images.shape}.")
    n, cells = len(images), config.cells
    fields = np.full((5, n, cells), -1, np.int16)
    ground = np.zeros(n, np.int16)
    junk, well = np.zeros((2, n, cells), bool)
    if n:
        synthesis = _synthesis(config, images.shape[1])
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            _parse_chunk(
                images[part],
                config,
                synthesis,
                fields[:, part],
                ground[part],
                junk[part],
                well[part],
            )
    colour, style = ground // len(config.styles), ground % len(config.styles)
    strict = np.where(well, fields, -1).astype(np.int16)
    none = np.zeros_like(junk)
    return Reading(
        SceneArrays(*strict, background=colour, style=style, junk=junk),  # type: ignore[misc]
        SceneArrays(*fields, background=colour, style=style, junk=none),  # type: ignore[misc]
    )


def parse(images: NDArray[np.uint8], config: WorldConfig) -> list[ParsedScene]:
    """As `parse_arrays`, one `ParsedScene` a picture."""
    arrays = parse_arrays(images, config)
    scenes = scenes_from_arrays(arrays, config)
    junk: list[list[int]] = [[] for _ in scenes]
    for i, cell in np.argwhere(arrays.junk).tolist():
        junk[i].append(cell)
    return [ParsedScene(s, tuple(j)) for s, j in zip(scenes, junk, strict=True)]


def parsed_arrays(parsed: Sequence[ParsedScene], config: WorldConfig) -> SceneArrays:
    """The inverse of the step from `parse_arrays` to `parse`."""
    from pipelines.world.scene import scene_arrays

    arrays = scene_arrays([p.scene for p in parsed], config)
    for i, p in enumerate(parsed):
        arrays.junk[i, list(p.junk)] = True
    return arrays


def _parse_chunk(
    images: NDArray[np.uint8],
    config: WorldConfig,
    synthesis: _Synthesis,
    fields: NDArray[np.int16],
    ground: NDArray[np.int16],
    junk: NDArray[np.bool_],
    well: NDArray[np.bool_],
) -> None:
    n, side = len(images), config.grid * CELL_PIXELS
    x = images.astype(np.float32)
    if images.shape[1] != side:
        shrink = area_matrix(images.shape[1], side)
        x = np.einsum("yh,nhwc,xw->nyxc", shrink, x, shrink, optimize=True)
    seen = x[:, synthesis.border].reshape(n, -1)
    known = synthesis.whole_grounds[:, synthesis.border].reshape(len(synthesis.faintest), -1)
    # |x - b|^2 = |x|^2 - 2 x.b + |b|^2; the first term is the same for every background.
    fit = (known * known).sum(1) - 2 * seen @ known.T
    ground[:] = fit.argmin(1)
    noise = np.square(seen - known[ground]).mean(1)
    noise = np.minimum(noise, MAX_NOISE)

    paint = _paints(config)
    pixels = _cells(x, config.grid)
    for cell in range(config.cells):
        b = synthesis.grounds[ground, cell]
        error = pixels[:, cell] - b
        alpha = synthesis.alphas[cell]
        # With model b + a (c - b), the error removed is 2 <error, a (c - b)> - |a (c - b)|^2.
        toward = np.concatenate([error, (error * b).sum(-1, keepdims=True)], -1)
        inner = np.matmul(alpha, toward)
        gain = 2 * (inner[..., :3] @ paint.T - inner[..., 3:]) - synthesis.energy[ground, cell]
        gain = gain.reshape(n, -1)
        best = gain.argmax(1)
        removed = gain[np.arange(n), best]
        standing = np.square(error).sum((1, 2)) - error[0].size * noise
        filled = standing > MIN_ENERGY * synthesis.faintest[ground]
        well[:, cell] = filled & (removed > MIN_EXPLAINED * standing)
        junk[:, cell] = filled & ~well[:, cell]
        nearer = removed > 0  # than the bare background is; holds wherever a cell is well-formed
        span = 2 * config.jitter + 1
        shape = (len(config.sizes), len(config.shapes), span, span, len(config.colours))
        size, form, dy, dx, colour = np.unravel_index(best, shape)
        values = (form, colour, size, dx - config.jitter, dy - config.jitter)
        for field, value in zip(fields, values, strict=True):
            field[nearer, cell] = value[nearer]


def _cells(pictures: Floats, grid: int) -> Floats:
    """(N, S, S, 3) -> (N, cells, CELL_PIXELS^2, 3)."""
    n = len(pictures)
    split = pictures.reshape(n, grid, CELL_PIXELS, grid, CELL_PIXELS, 3)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(n, grid * grid, CELL_PIXELS**2, 3)


def _paints(config: WorldConfig) -> Floats:
    return np.array([OBJECT_COLOURS[name] for name in config.colours], np.float32)
