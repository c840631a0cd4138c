"""Pictures from tars, decoded and cut, beside torchvision's transforms on PIL's plain decode.

One thread each, batch by batch in turn, so a picture's seconds are a core's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.bench.common.figures import Figures
from pipelines.bench.common.packed_pictures import pictures_of
from pipelines.bench.train.diffusers_style import ImageFolder
from pipelines.bench.train.pictures import KIND, SELECTION
from train.assemble import build_model
from train.data.cache import precompute
from train.data.index import build_index, index_folder
from train.data.loader import open_data
from train.data.pictures import TarPictures, Tars
from train.settings import TrainSettings, model_config

if TYPE_CHECKING:
    from curate.store.dataset import Dataset

_BATCH = 64


def decode_figures(
    dataset: Dataset, work: Path, model: str, sides: tuple[int, ...] = (64, 256)
) -> Figures:
    """Pictures a second and core at each side, decoded and from the cache."""
    figures = Figures("train/pictures")
    folder = work / "decoded-files"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.jpg" for number in range(_count(dataset))]
    for file, content in zip(files, pictures_of(dataset), strict=True):
        file.write_bytes(content)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for side in sides:
        settings = TrainSettings(
            model=model,
            resolution=side,
            captions={KIND: 1.0},
            validation_samples=0,
            device="cpu",
            cache=work / f"decode-{side}",
        )
        config = model_config(settings)
        index, _ = build_index(dataset, settings, config, SELECTION)
        tars = Tars(dataset, index_folder(dataset, settings))
        network = build_model(config, settings, index.texts())
        precompute(dataset, settings, config, network, SELECTION, say=lambda sentence: None)
        cached = open_data(dataset, settings, config, network.text, SELECTION).pictures
        # Reading a row for the first time decodes it; the tars' own indexes are made before.
        TarPictures(tars, index, crop="random").read(*_rows(0, len(index)))
        plain = ImageFolder(files, [""] * len(files), side)
        speeds = _in_turn(
            len(index),
            {
                "tar": TarPictures(tars, index).read,
                "cache": cached.read,
                "plain": partial(_each, plain),
            },
        )
        beside = ("PIL, torchvision", speeds["plain"])
        figures.add(f"{side}/decoded", speeds["tar"], "images/s and core", beside)
        figures.add(f"{side}/cached", speeds["cache"], "images/s and core", beside)
    torch.set_num_threads(threads)
    return figures


def _in_turn(count: int, readers: dict[str, Callable[[Any, Any], Any]]) -> dict[str, float]:
    """Rows a CPU second of each, every row once."""
    seconds = dict.fromkeys(readers, 0.0)
    for start in range(0, count, _BATCH):
        for name, read in readers.items():
            rows, epochs = _rows(start, min(start + _BATCH, count))
            begun = time.process_time()
            read(rows, epochs)
            seconds[name] += time.process_time() - begun
    return {name: count / took for name, took in seconds.items()}


def _each(data: ImageFolder, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> list[Any]:
    return [data[row] for row in rows.tolist()]


def _rows(start: int, stop: int) -> tuple[Any, Any]:
    rows = np.arange(start, stop)
    return rows, np.zeros_like(rows)


def _count(dataset: Dataset) -> int:
    rows = dataset.connect(["samples"]).execute(
        "SELECT count(*) FROM samples WHERE status = 'stored'"
    )
    return int(rows.fetchall()[0][0])
