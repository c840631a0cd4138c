"""What a judge promises: pictures and what was asked go in, columns come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.base.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

Pictures = NDArray[np.uint8]
"""(N, R, R, 3) uint8, sRGB."""


class Judge(ABC):
    """Scores single pictures; made once on the driver, and in every worker.

    Attributes:
        Options: its settings, read and checked before any work.
        metrics: the columns of `score` in the order in which a person should read them. What a
            metric is called and how it is shown stands in the one table of metrics; an unknown one
            is a plain score of which more is better.
        limits: sentences on what its verdicts do not show.
    """

    Options: ClassVar[type[Settings]] = Settings
    metrics: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    def __init__(self, options: Settings, device: str) -> None:
        """Load what it judges with, on the device that the models are trained on.

        Raises:
            ConfigError: the weights are not there or do not load.
        """
        self.options = options

    def identity(self) -> dict[str, Any]:
        """What its scores hang on beside the options: hashes of weights; empty for a program."""
        return {}

    @abstractmethod
    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        """Judge N pictures of N rows of PROMPTS (pipelines.judges.prompts), in that order.

        Returns:
            A (N,) float64 column a metric; NaN means that it does not apply to the picture.
        """

    def targets(self, asked: pa.Table, resolution: int) -> Pictures | None:
        """What the prompts meant, (N, R, R, 3) uint8; None where nobody can draw it."""
        return None

    def bounds(self, asked: pa.Table, resolution: int) -> pa.Table | None:
        """Between what its scores lie: columns form, metric, and what is known of ceiling (true
        pictures), soft (true ones, drawn softly), unrelated and hedging ones; None = unknown."""
        return None


class SetJudge(Judge):
    """Scores a set of pictures as a whole, as FID does: one number a run, form and wording.

    Attributes:
        keep: folder for what it computes of real pictures; None until its options or a study say.
    """

    keep: Path | None = None

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        """Nothing is said of a single picture."""
        return {}

    def used(self, count: int) -> int:
        """How many pictures of a set of `count` are judged.

        Raises:
            ConfigError: these are too few.
        """
        return count

    def attempt(self, pictures: Pictures, asked: pa.Table) -> None:
        """Look at a few pictures before any model is trained, and raise where it cannot judge.

        One whose sets must be large looks at what a few can show.
        """
        self.score_set(pictures, asked)

    @abstractmethod
    def score_set(self, pictures: Pictures, asked: pa.Table) -> dict[str, tuple[float, float]]:
        """Metric -> its value over all N pictures, and its floor.

        The floor is what two sets of real pictures of that size give: no model is better.
        """
