"""Pictures of scenes at any resolution, composed from supersampled alpha templates.

One template a (size, shape, dy, dx) and cell holds the share of every pixel that the object covers;
drawing is then one blend a cell over all scenes at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.world.palette import BACKGROUND_COLOURS, OBJECT_COLOURS, SIZES, shaded
from pipelines.world.scene import Scene, SceneArrays, WorldConfig, scene_arrays
from pipelines.world.shapes import SHAPES

Floats = NDArray[np.float32]
_CHUNK = 256


@dataclass(frozen=True)
class Window:
    """The pixels of a picture that one cell's objects can touch: [start, stop) on each axis."""

    top: int
    bottom: int
    left: int
    right: int


def template_index(arrays: SceneArrays, config: WorldConfig, cell: int) -> NDArray[np.int64]:
    """Which template the objects in `cell` use: (N,), meaningful where the cell is filled."""
    span = 2 * config.jitter + 1
    index = arrays.size[:, cell].astype(np.int64) * len(config.shapes) + arrays.shape[:, cell]
    index = (index * span + arrays.dy[:, cell] + config.jitter) * span
    return np.asarray(index + arrays.dx[:, cell] + config.jitter)


@lru_cache(maxsize=16)
def templates(
    config: WorldConfig, resolution: int, supersampling: int = 8
) -> tuple[list[Window], list[Floats]]:
    """For every cell its window and alpha templates: (sizes * shapes * span^2, h, w) in 0..1."""
    edges = np.arange(config.grid + 1) * resolution / config.grid
    starts, stops = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    steps = np.arange(-config.jitter, config.jitter + 1) / 16
    pitch = resolution / config.grid
    windows, alphas = [], []
    for row in range(config.grid):
        for column in range(config.grid):
            window = Window(starts[row], stops[row], starts[column], stops[column])
            windows.append(window)
            v = _fine(window.top, window.bottom, supersampling) / pitch - row - 0.5
            u = _fine(window.left, window.right, supersampling) / pitch - column - 0.5
            alpha = [
                _shrink(
                    SHAPES[shape]((u[None, :] - dx) / SIZES[size], (v[:, None] - dy) / SIZES[size]),
                    supersampling,
                )
                for size in config.sizes
                for shape in config.shapes
                for dy in steps
                for dx in steps
            ]
            alphas.append(np.stack(alpha))
    return windows, alphas


@lru_cache(maxsize=16)
def backgrounds(config: WorldConfig, resolution: int, supersampling: int = 8) -> Floats:
    """All backgrounds: (colours * styles, R, R, 3) float32 in 0..255, the style running fastest."""
    fine = _fine(0, resolution, supersampling) / resolution
    stripes = np.floor(fine * 8) % 2
    mix = {
        "plain": np.zeros((resolution, resolution)),
        "gradient": np.broadcast_to(_average(fine, supersampling)[:, None], (resolution,) * 2),
        "striped": np.broadcast_to(_average(stripes, supersampling)[:, None], (resolution,) * 2),
        "checkered": _shrink(stripes[:, None] != stripes[None, :], supersampling),
    }
    pictures = []
    for name in config.backgrounds:
        near, far = np.array(BACKGROUND_COLOURS[name]), np.array(shaded(name))
        pictures += [near + mix[style][..., None] * (far - near) for style in config.styles]
    return np.stack(pictures).astype(np.float32)


def render(
    scenes: Sequence[Scene] | SceneArrays, config: WorldConfig, resolution: int
) -> NDArray[np.uint8]:
    """Draw scenes: uint8 (N, R, R, 3), sRGB. Cost grows with N * R^2; 20k pictures/s at 32 px."""
    if resolution < 4 * config.grid:
        raise ValueError(f"resolution {resolution} leaves under 4 pixels a cell.")
    arrays = scenes if isinstance(scenes, SceneArrays) else scene_arrays(scenes, config)
    windows, alphas = templates(config, resolution)
    grounds = backgrounds(config, resolution)
    paints = np.array([OBJECT_COLOURS[name] for name in config.colours], np.float32)
    ground = arrays.background.astype(np.int64) * len(config.styles) + arrays.style
    chosen = [template_index(arrays, config, cell) for cell in range(config.cells)]
    out = np.empty((len(arrays), resolution, resolution, 3), np.uint8)
    for start in range(0, len(arrays), _CHUNK):
        part = slice(start, start + _CHUNK)
        canvas = grounds[ground[part]]
        for cell, w in enumerate(windows):
            filled = np.flatnonzero(arrays.shape[part, cell] >= 0)
            if not len(filled):
                continue
            alpha = alphas[cell][chosen[cell][part][filled]][..., None]
            paint = paints[arrays.colour[part, cell][filled]][:, None, None]
            patch = canvas[filled, w.top : w.bottom, w.left : w.right]
            canvas[filled, w.top : w.bottom, w.left : w.right] = patch + alpha * (paint - patch)
        out[part] = np.rint(canvas)
    return out


def area_matrix(source: int, target: int) -> Floats:
    """The linear map from `source` pixels to `target` pixels by area average: (target, source)."""
    low = np.arange(target)[:, None] * source / target
    high = low + source / target
    pixel = np.arange(source)[None, :]
    overlap = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return (np.maximum(overlap, 0) * target / source).astype(np.float32)


def _fine(start: int, stop: int, supersampling: int) -> Floats:
    """Sample positions inside the pixels start..stop, in pixels."""
    steps = np.arange((stop - start) * supersampling, dtype=np.float32)
    return np.asarray(start + (steps + 0.5) / supersampling, np.float32)


def _average(line: NDArray[np.floating], supersampling: int) -> NDArray[np.floating]:
    return line.reshape(-1, supersampling).mean(1)


def _shrink(mask: NDArray[np.bool_], supersampling: int) -> Floats:
    h, w = mask.shape[0] // supersampling, mask.shape[1] // supersampling
    fine = mask.reshape(h, supersampling, w, supersampling)
    return fine.mean((1, 3), dtype=np.float32)
