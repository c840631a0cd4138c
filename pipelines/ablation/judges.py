"""Judges: did the picture do what its prompt asked? Columns in, columns out.

`judge: world` or `judge: clip`, the name that an installed package gave one of its own (entry point
of group `caption_lab.judges`), or `module:Class`; examples/judge_of_your_own.py is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.errors import CaplabError, ConfigError
from curate.base.registry import load, said, tried
from pipelines.ablation.prompts import read_prompts
from pipelines.ablation.settings import AblateSettings

Pictures = NDArray[np.uint8]
JUDGES = {
    "world": "pipelines.ablation.world_judge:WorldJudge",
    "clip": "pipelines.ablation.judges:ClipJudge",
}


class Judge(ABC):
    """Scores generated pictures; made once on the driver, and in every worker.

    Attributes:
        metrics: the columns of `score` in the order in which a person should read them, the first
            ones about doing what was asked. What a metric is called and how it is shown stands in
            `metrics.METRICS`; an unknown one is a plain score of which more is better.
        weights: hashes of what it judges with, kept with the study; empty for a program.
        limits: sentences on what its verdicts do not show.
    """

    metrics: tuple[str, ...] = ()
    weights: dict[str, Any] = {}  # noqa: RUF012 - a subclass replaces it, nobody adds to it
    limits: tuple[str, ...] = ()

    def __init__(self, settings: AblateSettings, device: str) -> None:
        """Load what it judges with, on the device that the models are trained on.

        Raises:
            ConfigError: the weights are not there or do not load.
        """
        self.settings = settings

    @abstractmethod
    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        """Judge `(N, R, R, 3)` uint8 pictures of prompts of one form.

        Returns:
            A `(N,)` float64 column a metric; NaN means that it does not apply to the picture.
        """

    def prompts(self) -> pa.Table:
        """What every arm is asked to draw, in the schema PROMPTS; here those of `--prompts`."""
        if self.settings.prompts is None:
            raise ConfigError(f"The judge {self.settings.judge} needs `prompts`, a file of them.")
        return read_prompts(Path(self.settings.prompts))

    def targets(self, scenes: Sequence[str | None], resolution: int) -> Pictures | None:
        """What the prompts meant, `(N, R, R, 3)` uint8; None where nobody can draw it."""
        return None


class ClipJudge(Judge):
    """CLIP similarity of picture and prompt. Blind to counts and relations; see its literature."""

    metrics = ("clip_similarity",)

    def __init__(self, settings: AblateSettings, device: str) -> None:
        from curate.scoring.scorers.clip import Clip, ClipModel

        super().__init__(settings, device)
        scorer = Clip(settings.clip_model, settings.clip_pretrained, device=device)
        self.weights = scorer.signature()
        self.clip = ClipModel(scorer)

    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        images = self.clip.embed_pictures(pictures)
        texts = self.clip.embed_texts(list(prompts))
        return {"clip_similarity": np.sum(images * texts, axis=1).astype(np.float64)}


def make_judge(settings: AblateSettings, device: str) -> Judge:
    """The judge that the settings name.

    Raises:
        ConfigError: there is none of that name, it is no judge, or its weights do not load.
    """
    found = load("judges", settings.judge, JUDGES)
    if not (isinstance(found, type) and issubclass(found, Judge)):
        raise ConfigError(
            f"{settings.judge} is no class derived from Judge (pipelines.ablation.judges)."
        )
    judge = tried(lambda: found(settings, device))
    if isinstance(judge, CaplabError):
        raise judge
    if isinstance(judge, Exception):
        raise ConfigError(f"The judge {settings.judge} cannot be made ({said(judge)}).") from judge
    if not judge.metrics:
        raise ConfigError(f"The judge {settings.judge} names no metrics.")
    return judge
