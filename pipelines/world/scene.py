"""What there is in the world: configuration, scenes, and their sampling.

A scene is a grid of cells, each empty or holding one object (shape, colour, size), on a background
(colour, style). A cell is where an object stands: "position" is the cell's name. Scenes also exist
as arrays (`SceneArrays`), the form in which rendering, parsing and judging work.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.world.palette import (
    BACKGROUND_COLOURS,
    BACKGROUND_STYLES,
    OBJECT_COLOURS,
    SIZES,
    distance,
    shaded,
)
from pipelines.world.shapes import SHAPES

Combinations = Literal["any", "seen", "held_out"]
IntArray = NDArray[np.int16]

_HELD_OUT = (
    ("square", "purple"),
    ("triangle", "cyan"),
    ("ring", "green"),
    ("cross", "orange"),
    ("bar", "pink"),
    ("moon", "yellow"),
    ("circle", "red"),
    ("hourglass", "blue"),
    ("diamond", "lime"),
    ("pillar", "teal"),
)
"""(shape, colour) pairs that no training picture shows: every shape and every colour at most once,
so that each is still seen with nearly all of the others."""

# Nearest that an object colour may come to a background or its shade (sRGB, 0..441).
MIN_COLOUR_DISTANCE = 75.0


@dataclass(frozen=True)
class WorldConfig:
    """How rich the world is. Cell 0 is top left; cells count in raster order."""

    grid: int = 2
    """Cells a side."""
    shapes: tuple[str, ...] = ("square", "triangle", "ring", "cross", "bar", "moon")
    colours: tuple[str, ...] = (
        "red",
        "green",
        "blue",
        "yellow",
        "orange",
        "purple",
        "pink",
        "cyan",
    )
    sizes: tuple[str, ...] = ("small", "large")
    backgrounds: tuple[str, ...] = ("white", "gray", "black", "tan")
    styles: tuple[str, ...] = ("plain", "gradient", "striped")
    count_weights: tuple[float, ...] = (0.3, 0.3, 0.25, 0.15)
    """Chance of 1, 2, ... objects; its length is the largest number of objects."""
    jitter: int = 1
    """Objects stand off their cell's centre by up to this many sixteenths of a cell."""
    held_out: frozenset[tuple[str, str]] = frozenset()
    """(shape, colour) pairs kept out of training, for tests of composition; see `sample_scenes`."""

    def __post_init__(self) -> None:
        _known("shape", self.shapes, SHAPES)
        _known("colour", self.colours, OBJECT_COLOURS)
        _known("size", self.sizes, SIZES)
        _known("background colour", self.backgrounds, BACKGROUND_COLOURS)
        _known("background style", self.styles, BACKGROUND_STYLES)
        if not 2 <= self.grid <= 3:
            raise ValueError(f"grid is {self.grid}; positions have names for 2 and 3 cells a side.")
        if not 1 <= len(self.count_weights) <= self.cells:
            raise ValueError(f"count_weights needs 1 to {self.cells} entries, one a count.")
        if not np.isclose(sum(self.count_weights), 1) or min(self.count_weights) < 0:
            raise ValueError("count_weights must be chances that sum to 1.")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be 0 or 1: more would push objects out of their cell.")
        for shape, colour in self.held_out:
            _known("held-out shape", (shape,), self.shapes)
            _known("held-out colour", (colour,), self.colours)
        for colour in self.colours:
            for name in self.backgrounds:
                for other in (BACKGROUND_COLOURS[name], shaded(name)):
                    if distance(OBJECT_COLOURS[colour], other) < MIN_COLOUR_DISTANCE:
                        raise ValueError(f"{colour} objects would melt into {name} backgrounds.")

    @property
    def cells(self) -> int:
        return self.grid * self.grid

    @classmethod
    def small(cls) -> "WorldConfig":
        """The demo's world: 2x2 cells, 1 to 4 objects, 6 shapes that differ at 32 px.

        6 of its 48 pairs are held out.
        """
        return cls(held_out=frozenset(_HELD_OUT[:6]))

    @classmethod
    def rich(cls) -> "WorldConfig":
        """A world for a GPU: 3x3 cells, 1 to 6 objects, 10 shapes, 11 colours, 3 sizes.

        10 of its 110 pairs are held out.
        """
        return cls(
            grid=3,
            shapes=tuple(name for name in SHAPES if name != "frame"),
            colours=tuple(name for name in OBJECT_COLOURS if name != "brown"),
            sizes=tuple(SIZES),
            backgrounds=tuple(BACKGROUND_COLOURS),
            styles=BACKGROUND_STYLES,
            count_weights=(0.1, 0.2, 0.25, 0.2, 0.15, 0.1),
            held_out=frozenset(_HELD_OUT),
        )


@dataclass(frozen=True)
class SceneObject:
    """One object. `dx`, `dy` are its offset from the cell's centre, in sixteenths of a cell."""

    shape: str
    colour: str
    size: str
    cell: int
    dx: int = 0
    dy: int = 0


@dataclass(frozen=True)
class Scene:
    """Objects in raster order of their cells, at most one a cell, on a background."""

    objects: tuple[SceneObject, ...]
    background: str
    style: str
    grid: int = 2

    def __post_init__(self) -> None:
        cells = [o.cell for o in self.objects]
        if cells != sorted(set(cells)) or (cells and not 0 <= cells[0] <= cells[-1] < self.grid**2):
            raise ValueError(f"objects must stand in distinct cells in raster order, not {cells}.")

    @property
    def main(self) -> SceneObject:
        """The object that a short caption names: the first of the largest ones."""
        return max(self.objects, key=lambda o: (SIZES[o.size], -o.cell))

    def to_json(self) -> str:
        rows = [[o.shape, o.colour, o.size, o.cell, o.dx, o.dy] for o in self.objects]
        record = {
            "grid": self.grid,
            "background": self.background,
            "style": self.style,
            "objects": rows,
        }
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Scene":
        record = json.loads(text)
        objects = tuple(SceneObject(*row) for row in record["objects"])
        return cls(objects, record["background"], record["style"], record["grid"])


@dataclass(frozen=True)
class SceneArrays:
    """N scenes as columns. Names are indices into the configuration's tuples; -1 is "none".

    `shape`, `colour`, `size`, `dx`, `dy`: (N, cells). `background`, `style`: (N,).
    `junk`: (N, cells) bool, cells that hold something that is no object of this world (only a
    parsed picture has them).
    """

    shape: IntArray
    colour: IntArray
    size: IntArray
    dx: IntArray
    dy: IntArray
    background: IntArray
    style: IntArray
    junk: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.background)


def scene_arrays(scenes: Sequence[Scene], config: WorldConfig) -> SceneArrays:
    """Scenes to columns. Raises ValueError where a scene uses a name that `config` lacks."""
    n, cells = len(scenes), config.cells
    fields = np.full((5, n, cells), -1, np.int16)
    ground = np.empty((2, n), np.int16)
    shapes = {name: i for i, name in enumerate(config.shapes)}
    colours = {name: i for i, name in enumerate(config.colours)}
    sizes = {name: i for i, name in enumerate(config.sizes)}
    backgrounds = {name: i for i, name in enumerate(config.backgrounds)}
    styles = {name: i for i, name in enumerate(config.styles)}
    try:
        rows = [
            (i, o.cell, shapes[o.shape], colours[o.colour], sizes[o.size], o.dx, o.dy)
            for i, scene in enumerate(scenes)
            for o in scene.objects
        ]
        ground[:] = (
            np.array([(backgrounds[s.background], styles[s.style]) for s in scenes], np.int16)
            .reshape(n, 2)
            .T
        )
    except KeyError as error:
        raise ValueError(f"a scene uses {error}, which this world does not have.") from error
    if rows:
        table = np.array(rows, np.int64)
        if table[:, 1].max() >= cells:
            raise ValueError(f"a scene has more cells than this world's {cells}.")
        fields[:, table[:, 0], table[:, 1]] = table[:, 2:].T
    return SceneArrays(*fields, *ground, junk=np.zeros((n, cells), bool))  # type: ignore[misc]


def scenes_from_arrays(arrays: SceneArrays, config: WorldConfig) -> list[Scene]:
    """Columns to scenes; junk cells are left out."""
    n = len(arrays)
    objects: list[list[SceneObject]] = [[] for _ in range(n)]
    index, cell = np.nonzero(arrays.shape >= 0)
    at = (index, cell)
    table = (arrays.shape[at], arrays.colour[at], arrays.size[at], arrays.dx[at], arrays.dy[at])
    for i, c, shape, colour, size, dx, dy in zip(
        index.tolist(), cell.tolist(), *(column.tolist() for column in table), strict=True
    ):
        objects[i].append(
            SceneObject(config.shapes[shape], config.colours[colour], config.sizes[size], c, dx, dy)
        )
    return [
        Scene(tuple(objects[i]), config.backgrounds[b], config.styles[s], config.grid)
        for i, (b, s) in enumerate(
            zip(arrays.background.tolist(), arrays.style.tolist(), strict=True)
        )
    ]


def sample_arrays(
    config: WorldConfig, n: int, seed: int, combinations: Combinations = "any"
) -> SceneArrays:
    """`n` random scenes as columns; the first rows are the same for every larger `n`.

    combinations: "seen" never shows a held-out (shape, colour) pair and is what pictures to train a
    generator on are drawn with, "held_out" shows at least one in every scene, "any" ignores the
    distinction. Cost: O(n * cells), about 1 us a scene.
    """
    if combinations == "held_out" and not config.held_out:
        raise ValueError("combinations='held_out' needs a world with held_out pairs.")
    cells = config.cells
    pairs = [(s, c) for s in range(len(config.shapes)) for c in range(len(config.colours))]
    hidden = {(config.shapes.index(s), config.colours.index(c)) for s, c in config.held_out}
    seen = [p for p in pairs if p not in hidden]
    allowed = np.array(seen if combinations == "seen" else pairs)
    # One row of uniforms a scene, so that a longer sample starts with the shorter one.
    uniform = np.random.default_rng(seed).random((n, 4 + 5 * cells))
    head, body = uniform[:, :4], uniform[:, 4:].reshape(n, 5, cells)
    count = 1 + np.searchsorted(np.cumsum(config.count_weights)[:-1], head[:, 0], side="right")
    rank = body[:, 0].argsort(axis=1).argsort(axis=1)
    present = rank < count[:, None]
    pair = allowed[(body[:, 1] * len(allowed)).astype(int)]
    if combinations == "held_out":
        secret = np.array(sorted(hidden))
        chosen = secret[(head[:, 3] * len(secret)).astype(int)]
        pair = np.where((rank == 0)[..., None], chosen[:, None], pair)
    span = 2 * config.jitter + 1

    def only_present(values: NDArray[np.int64]) -> IntArray:
        return np.where(present, values, -1).astype(np.int16)

    return SceneArrays(
        shape=only_present(pair[..., 0]),
        colour=only_present(pair[..., 1]),
        size=only_present((body[:, 2] * len(config.sizes)).astype(int)),
        dx=only_present((body[:, 3] * span).astype(int) - config.jitter),
        dy=only_present((body[:, 4] * span).astype(int) - config.jitter),
        background=(head[:, 1] * len(config.backgrounds)).astype(np.int16),
        style=(head[:, 2] * len(config.styles)).astype(np.int16),
        junk=np.zeros((n, cells), bool),
    )


def sample_scenes(
    config: WorldConfig, n: int, seed: int, combinations: Combinations = "any"
) -> list[Scene]:
    """`n` random scenes; see `sample_arrays`."""
    return scenes_from_arrays(sample_arrays(config, n, seed, combinations), config)


def _known(what: str, names: tuple[str, ...], known: object) -> None:
    unknown = [name for name in names if name not in known]  # type: ignore[operator]
    if not names or unknown or len(set(names)) != len(names):
        raise ValueError(f"{what} names must be distinct and known, not {names}.")
