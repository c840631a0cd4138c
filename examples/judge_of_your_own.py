"""A judge of your own for an ablation: how much of each picture is the colour that was asked for.

    PYTHONPATH=examples caplab ablate DATASET --out study --prompts prompts.txt \\
        --judge judge_of_your_own:ColourJudge --primary-metric colour_share \\
        --primary-prompt-form prompt
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.ablation.judges import Judge, Pictures

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class ColourJudge(Judge):
    """The mean share of light that is of the colour which the prompt names."""

    metrics = ("colour_share",)
    limits = ("The share of a colour says nothing about what is shown.",)

    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        light = pictures.astype(np.float64).mean(axis=(1, 2))  # (N, 3)
        shares = light / np.maximum(light.sum(axis=1, keepdims=True), 1)
        asked = [next((c for c in CHANNELS if c in prompt), None) for prompt in prompts]
        # NaN: the prompt names no colour, so the metric does not apply.
        found = [
            np.nan if c is None else row[CHANNELS[c]] for c, row in zip(asked, shares, strict=True)
        ]
        return {"colour_share": np.array(found)}
