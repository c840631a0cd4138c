"""Between what bounds the world judge's scores lie: what no model beats, and what luck gives.

    ceiling    true pictures of what was meant
    soft       the same a little blurred and off their place, as a model draws: what of a perfect
               model's scores the parser would take away
    unrelated  pictures as the web shows them, whatever was asked
    hedging    pictures with an object in every cell, all of different shapes and colours: the best
               that can be drawn for a prompt that was not read, since all pairs are equally likely

The last two show no held-out pair, as a model that learnt nothing but the web would not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.judges.protocol import Pictures
from pipelines.world.parse import Reading, read
from pipelines.world.render import render
from pipelines.world.scene import Scene, SceneArrays, WorldConfig, sample_arrays

BOUNDS = pa.schema(
    [
        ("form", pa.string()),
        ("metric", pa.string()),
        ("ceiling", pa.float64()),
        ("soft", pa.float64()),
        ("unrelated", pa.float64()),
        ("hedging", pa.float64()),
    ]
)
"""Means over a form's intents; a metric that never applies to a form has no row."""

BLUR, SHIFT = 1 / 20, 1 / 32
"""Of `softened`, as shares of a cell: in one of 16 px 0.8 px and half a pixel."""
_POOL = 2048  # pictures that each floor averages over, intents in turn


Score = Callable[[Reading, pa.Table], dict[str, NDArray[np.float64]]]
"""What the world's judge says of N pictures that were read, for N rows of PROMPTS."""


def world_bounds(
    prompts: pa.Table, score: Score, config: WorldConfig, resolution: int, seed: int = 0
) -> pa.Table:
    """The bounds of a prompt set (schema PROMPTS) in the schema BOUNDS.

    Wordings share their intents, so they share their bounds. Under two seconds for 200 scenes of
    the small world at 32 px.
    """
    web, full = (
        read(render(scenes, config, resolution), config)
        for scenes in (sample_arrays(config, _POOL, seed, "seen"), hedges(config, _POOL, seed))
    )
    rows = []
    forms, intents = prompts.column("form").to_pylist(), prompts.column("intent").to_pylist()
    for form in dict.fromkeys(forms):
        first = {intents[i]: i for i in reversed(range(len(forms))) if forms[i] == form}
        places = sorted(first.values())
        asked = prompts.take(places)
        often = asked.take(np.resize(np.arange(asked.num_rows), _POOL))
        true = render([Scene.from_json(intents[i]) for i in places], config, resolution)
        scored = {
            "ceiling": score(read(true, config), asked),
            "soft": score(read(softened(true, config.grid), config), asked),
            "unrelated": score(web, often),
            "hedging": score(full, often),
        }
        for metric in scored["ceiling"]:
            if not np.isnan(scored["ceiling"][metric]).all():
                means = {name: _mean(columns[metric]) for name, columns in scored.items()}
                rows.append({"form": form, "metric": metric, **means})
    return pa.Table.from_pylist(rows, schema=BOUNDS)


def softened(pictures: Pictures, grid: int) -> Pictures:
    """(N, R, R, 3) uint8 blurred by `BLUR`, and shifted by `SHIFT` to the four corners in turn."""
    from scipy.ndimage import gaussian_filter, shift

    cell = pictures.shape[1] / grid
    blurred = gaussian_filter(pictures.astype(np.float32), (0, BLUR * cell, BLUR * cell, 0))
    out = np.empty_like(pictures)
    for corner in range(4):
        down, right = (SHIFT * cell * (-1) ** half for half in divmod(corner, 2))
        moved = shift(blurred[corner::4], (0, down, right, 0), order=1, mode="nearest")
        out[corner::4] = np.clip(np.rint(moved), 0, 255)
    return out


def hedges(config: WorldConfig, n: int, seed: int) -> SceneArrays:
    """`n` scenes full of objects, no two of one shape or one colour, none of a held-out pair."""
    rng = np.random.default_rng([seed, 41])
    hidden = np.zeros((len(config.shapes), len(config.colours)), bool)
    for shape, colour in config.held_out:
        hidden[config.shapes.index(shape), config.colours.index(colour)] = True
    pairs = np.empty((2, 0, config.cells), np.int16)
    while pairs.shape[1] < n:
        drawn = np.stack(
            [
                _distinct(rng, n, len(names), config.cells)
                for names in (config.shapes, config.colours)
            ]
        )
        pairs = np.concatenate([pairs, drawn[:, ~hidden[drawn[0], drawn[1]].any(1)]], 1)

    def any_of(names: tuple[str, ...], *shape: int) -> NDArray[np.int16]:
        return rng.integers(0, len(names), (n, *shape)).astype(np.int16)

    centred = np.zeros((n, config.cells), np.int16)
    return SceneArrays(
        shape=pairs[0, :n],
        colour=pairs[1, :n],
        size=any_of(config.sizes, config.cells),
        dx=centred,
        dy=centred,
        background=any_of(config.backgrounds),
        style=any_of(config.styles),
        junk=np.zeros((n, config.cells), bool),
    )


def _distinct(rng: np.random.Generator, n: int, among: int, count: int) -> NDArray[np.int16]:
    """(n, count) numbers under `among`, distinct in every row."""
    return rng.random((n, among)).argsort(1)[:, :count].astype(np.int16)


def _mean(values: NDArray[np.float64]) -> float:
    given = values[~np.isnan(values)]
    return float(given.mean()) if len(given) else float("nan")
