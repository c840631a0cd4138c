"""A training set of coloured squares and the smallest settings, shared by the tests of train/."""

from typing import Any

import numpy as np

from train.settings import TrainSettings
from train.shards import TrainingSamples

COLOURS = {"red": (220, 20, 30), "green": (20, 150, 40), "blue": (30, 60, 220)}


def squares(count: int = 40, resolution: int = 16) -> TrainingSamples:
    """`count` plain pictures, each named by its colour; two descriptive captions each."""
    names = [list(COLOURS)[i % len(COLOURS)] for i in range(count)]
    images = np.empty((count, resolution, resolution, 3), np.uint8)
    images[:] = np.array([COLOURS[name] for name in names], np.uint8)[:, None, None]
    captions = {
        "descriptive": [[f"a plain {n} square", f"everything is {n}"] for n in names],
        "short": [[n] for n in names],
        "alt": [[f"IMG_{i}.jpg"] for i in range(count)],
    }
    return TrainingSamples([f"key{i}" for i in range(count)], images, captions)


def tiny(**changes: Any) -> TrainSettings:
    """Settings of a run of a second."""
    return TrainSettings(**{"model": "tiny-test", "threads": 1, **changes})
