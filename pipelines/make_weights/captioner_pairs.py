"""Pairs of the world to fit a captioner to: few clean captions, many noisy alt texts.

The clean pictures are legible (neither spoilt nor marked); the noisy ones are as the web has them,
with the web's alt texts, of which 58% tell something true (`writers.ALT_SHARES`).
"""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipelines.make_weights.examples import stored_pictures
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.writers import habitual_descriptive, habitual_short, write_alt

_NOISY = 1  # added to the seed, so that no clean scene is drawn again


def clean_scenes(n: int, seed: int) -> list[Scene]:
    """The scenes of `write_clean_pairs`."""
    return sample_scenes(WorldConfig.small(), n, seed)


def write_clean_pairs(path: Path, n: int, seed: int) -> Path:
    """A Parquet file of n pictures with one short and one descriptive caption each.

    About 3 ms of CPU a picture.
    """
    world, scenes = WorldConfig.small(), clean_scenes(n, seed)
    pictures = stored_pictures(scenes, world, seed, ugly=0.0, unsafe=0.0)
    short, descriptive = habitual_short(scenes), habitual_descriptive(scenes)
    kinds = {"short": short, "descriptive": descriptive}
    return _write(path, pictures.pixels, kinds.items())


def write_noisy_pairs(path: Path, n: int, seed: int) -> Path:
    """A Parquet file of n web pictures with their alt texts, kind `alt`."""
    world = WorldConfig.small()
    scenes = sample_scenes(world, n, seed + _NOISY)
    pictures = stored_pictures(scenes, world, seed + _NOISY)
    texts = [text.text for text in write_alt(scenes, seed + _NOISY)]
    return _write(path, pictures.pixels, [("alt", texts)])


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """One picture (H, W, 3) as PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _write(path: Path, pixels: NDArray[np.uint8], kinds: Iterable[tuple[str, list[str]]]) -> Path:
    files = [encoded(picture) for picture in pixels]
    columns: dict[str, list[object]] = {"image": [], "kind": [], "caption": []}
    for kind, captions in kinds:
        columns["image"] += files
        columns["kind"] += [kind] * len(files)
        columns["caption"] += captions
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path
