"""A scorer of your own: how warm a picture's light is, and how long its text takes to read.

PYTHONPATH=examples caplab score DATASET --scorers scorer_of_your_own:WarmthAndReading
caplab select DATASET --name evening --where "warmth > 0.1 and reading_seconds < 10"
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.scoring.scorers.own import OwnScorer

CHARACTERS_A_SECOND = 15


class WarmthAndReading(OwnScorer):
    """warmth: mean red less mean blue, -1 to 1. reading_seconds: null where there is no text."""

    name, version = "warmth_and_reading", 1
    needs = ("canvas", "alt_text")  # (B, 128, 128, 3) uint8, and a list of texts or None
    types: ClassVar = {"warmth": pa.float32(), "reading_seconds": pa.float32()}

    def score(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        light = columns["canvas"].mean(axis=(1, 2), dtype=np.float32) / 255  # (B, 3)
        texts = columns["alt_text"]
        return {
            "warmth": light[:, 0] - light[:, 2],
            "reading_seconds": [len(t) / CHARACTERS_A_SECOND if t else None for t in texts],
        }
