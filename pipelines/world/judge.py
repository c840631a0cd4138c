"""Did the picture do what its prompt asked? Read pictures against the prompts' scenes.

Always scored against the original intent: the whole scene, or its main object alone for prompts
that ask for no more (what a rewriting made up is no intent).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.world.palette import SIZES
from pipelines.world.parse import Reading
from pipelines.world.scene import Scene, SceneArrays, WorldConfig, scene_arrays

Asked = Literal["scene", "main"]
Column = NDArray[np.float64]

COLUMNS = (
    "colour",
    "shape",
    "size",
    "position",
    "count",
    "binding",
    "relation",
    "object_hit",
    "object_hit_well_formed",
    "object_forced",
    "object_hit_held_out",
    "background",
    "all_correct",
    "malformed",
    "hallucinated",
)
"""The columns of `judge`, in order."""


def judge(
    reading: Reading, scenes: Sequence[Scene] | SceneArrays, asked: Asked, config: WorldConfig
) -> dict[str, Column]:
    """Score N pictures; every column is float64 (N,), a share in 0..1 unless told, NaN = no case.

    Asked for the scene, over its objects:
    colour, shape, size     their cell holds an object with the right attribute
    position                occupied cells in common / occupied cells in either (Jaccard)
    count                   1 where the number of well-formed objects is right
    binding                 their (colour, shape) pair is in the picture, wherever; as multisets
    relation                pairs of them that are both in the picture (colour and shape) and stand
                            in the scene's direction to each other (NaN for a single object)
    object_hit              their cell holds an object of the right colour and shape
    object_hit_well_formed  the same among the objects whose cell is not malformed (NaN if none)
    object_forced           the same where every cell is read as what it is nearest to
    object_hit_held_out     object_hit among the objects of held-out pairs (NaN if none)
    background              1 where background colour and style are right
    all_correct             1 where every object is right in cell, colour, shape and size, nothing
                            else is there, and the background is right
    malformed               malformed cells / cells that are not empty (0 for an empty picture)
    hallucinated            NUMBER of well-formed objects beyond the scene's (colour, shape) pairs

    Asked for the main object alone: colour, shape: some object has it; binding and object_hit: some
    object has both; object_hit_well_formed: that, over the pictures that have a well-formed object;
    object_forced: that, by the forced reading; object_hit_held_out: that, where the main object's
    pair is held out; all_correct: object_hit and nothing malformed; malformed as above; the rest is
    NaN, since the prompt says nothing of it. Cost O(N * cells^4), under 10 us a picture in the
    small world.
    """
    seen = reading.strict
    meant = scenes if isinstance(scenes, SceneArrays) else scene_arrays(scenes, config)
    if len(seen) != len(meant):
        raise ValueError(f"{len(seen)} pictures for {len(meant)} scenes.")
    found = seen.shape >= 0
    standing = (found | seen.junk).sum(1)
    malformed = seen.junk.sum(1) / np.maximum(standing, 1)
    columns = {name: np.full(len(seen), np.nan) for name in COLUMNS}
    columns["malformed"] = malformed.astype(np.float64)
    if asked == "scene":
        columns.update(_judge_scene(reading, meant, found, config))
    else:
        columns.update(_judge_main(reading, meant, found, malformed, config))
    return columns


def _judge_scene(
    reading: Reading, meant: SceneArrays, found: NDArray[np.bool_], config: WorldConfig
) -> dict[str, Column]:
    seen, forced = reading.strict, reading.forced
    wanted = meant.shape >= 0
    colour = wanted & (seen.colour == meant.colour)
    shape = wanted & (seen.shape == meant.shape)
    size = wanted & (seen.size == meant.size)
    hit = colour & shape
    clear = wanted & ~seen.junk
    nearest = (forced.colour == meant.colour) & (forced.shape == meant.shape)
    ground = (seen.background == meant.background) & (seen.style == meant.style)
    right = ((hit & size) | (~wanted & ~found & ~seen.junk)).all(1)
    bound = _matched_pairs(seen, meant, config)
    return {
        "colour": _share(colour, wanted),
        "shape": _share(shape, wanted),
        "size": _share(size, wanted),
        "position": _share(wanted & found, wanted | found),
        "count": (found.sum(1) == wanted.sum(1)).astype(np.float64),
        "binding": bound / np.maximum(wanted.sum(1), 1),
        "relation": _relations_kept(seen, meant, wanted, found, config.grid),
        "object_hit": _share(hit, wanted),
        "object_hit_well_formed": _share(hit, clear),
        "object_forced": _share(nearest, wanted),
        "object_hit_held_out": _share(hit, _held_out(meant, config)),
        "background": ground.astype(np.float64),
        "all_correct": (right & ground).astype(np.float64),
        "hallucinated": (found.sum(1) - bound).astype(np.float64),
    }


def _judge_main(
    reading: Reading,
    meant: SceneArrays,
    found: NDArray[np.bool_],
    malformed: Column,
    config: WorldConfig,
) -> dict[str, Column]:
    extent = np.array([SIZES[name] for name in config.sizes])
    main = np.where(meant.shape >= 0, extent[meant.size], -1.0).argmax(1)
    at = (np.arange(len(meant)), main)
    seen, forced = reading.strict, reading.forced
    # A scene has a main object, so no index is -1 and an empty cell equals none.
    paint, form = meant.colour[at][:, None], meant.shape[at][:, None]
    colour, shape = seen.colour == paint, seen.shape == form
    hit = (colour & shape).any(1).astype(np.float64)
    nearest = ((forced.colour == paint) & (forced.shape == form)).any(1)
    return {
        "colour": colour.any(1).astype(np.float64),
        "shape": shape.any(1).astype(np.float64),
        "binding": hit,
        "object_hit": hit,
        "object_hit_well_formed": np.where(found.any(1), hit, np.nan),
        "object_forced": nearest.astype(np.float64),
        "object_hit_held_out": np.where(_held_out(meant, config)[at], hit, np.nan),
        "all_correct": hit * (malformed == 0),
    }


def _held_out(arrays: SceneArrays, config: WorldConfig) -> NDArray[np.bool_]:
    """(N, cells): the object there has a pair that no training picture shows."""
    table = np.zeros((len(config.shapes), len(config.colours)), bool)
    for shape, colour in config.held_out:
        table[config.shapes.index(shape), config.colours.index(colour)] = True
    return (arrays.shape >= 0) & table[arrays.shape, arrays.colour]


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Column:
    total = among.sum(1)
    return np.where(total > 0, (hits & among).sum(1) / np.maximum(total, 1), np.nan)


def _pair(arrays: SceneArrays, config: WorldConfig) -> NDArray[np.int64]:
    """(colour, shape) as one number; -1 where there is no object."""
    pair = arrays.colour.astype(np.int64) * len(config.shapes) + arrays.shape
    return np.where(arrays.shape >= 0, pair, -1)


def _matched_pairs(seen: SceneArrays, meant: SceneArrays, config: WorldConfig) -> NDArray[np.int64]:
    """Size of the multiset intersection of (colour, shape) pairs: (N,)."""
    kinds = len(config.colours) * len(config.shapes)
    counts = []
    for arrays in (seen, meant):
        pair = _pair(arrays, config)
        count = np.zeros((len(arrays), kinds + 1), np.int64)
        np.add.at(count, (np.arange(len(arrays))[:, None], pair), 1)
        counts.append(count[:, :kinds])  # the last column collects the empty cells
    return np.minimum(*counts).sum(1)


def _relations_kept(
    seen: SceneArrays,
    meant: SceneArrays,
    wanted: NDArray[np.bool_],
    found: NDArray[np.bool_],
    grid: int,
) -> Column:
    cells = np.arange(grid * grid)
    row, column = cells // grid, cells % grid
    down = np.sign(row[:, None] - row)
    right = np.sign(column[:, None] - column)
    same = (down[:, :, None, None] == down) & (right[:, :, None, None] == right)
    same &= (cells[:, None] != cells)[None, None]
    match = (
        (meant.colour[:, :, None] == seen.colour[:, None])
        & (meant.shape[:, :, None] == seen.shape[:, None])
        & wanted[:, :, None]
        & found[:, None]
    ).astype(np.float32)
    kept = np.einsum("nia,njb,ijab->nij", match, match, same.astype(np.float32), optimize=True)
    pairs = wanted[:, :, None] & wanted[:, None] & (cells[:, None] < cells)
    return _share((kept > 0).reshape(len(kept), -1), pairs.reshape(len(pairs), -1))
