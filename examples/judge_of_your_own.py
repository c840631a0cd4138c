"""A judge of your own for an ablation: how much of each picture is the colour that was asked for.

    PYTHONPATH=examples caplab ablate DATASET --out study --arms arms.yaml

where arms.yaml says `judges: judge_of_your_own:ColourJudge` and
`primary: {metric: colour_share, form: own}`; or, of a study that is there:

    PYTHONPATH=examples caplab judge study --judge judge_of_your_own:ColourJudge --option gain=2
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate.base.settings import Settings
from pipelines.judges.protocol import Judge, Pictures

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class ColourOptions(Settings):
    """What can be said under `judges: {judge_of_your_own:ColourJudge: {...}}`."""

    gain: float = Field(1.0, gt=0, description="Contrast, before shares are taken")


class ColourJudge(Judge):
    """The mean share of light that is of the colour which the prompt names."""

    Options = ColourOptions
    options: ColourOptions
    metrics = ("colour_share",)
    limits = ("The share of a colour says nothing about what is shown.",)

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        light = pictures.astype(np.float64).mean(axis=(1, 2)) ** self.options.gain  # (N, 3)
        shares = light / np.maximum(light.sum(axis=1, keepdims=True), 1)
        named = [
            next((c for c in CHANNELS if c in prompt), None)
            for prompt in asked.column("prompt").to_pylist()
        ]
        # NaN: the prompt names no colour, so the metric does not apply.
        found = [
            np.nan if c is None else row[CHANNELS[c]] for c, row in zip(named, shares, strict=True)
        ]
        return {"colour_share": np.array(found)}
