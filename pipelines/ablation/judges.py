"""Judges: did the picture do what its prompt asked? One protocol, columns in and columns out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.ablation.settings import AblateSettings

Pictures = NDArray[np.uint8]


class Judge(Protocol):
    """Scores a batch of generated pictures.

    `metrics` are the columns in the order in which a person should read them, the first ones
    about doing what was asked; NaN means that the metric does not apply to the picture. What a
    metric is called and how it is shown stands in `metrics.METRICS`.
    """

    metrics: tuple[str, ...]
    weights: dict[str, Any]
    """Hashes of what it judges with; empty for a program."""

    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        """Judge `(N, R, R, 3)` uint8 pictures; every column is `(N,)` float64."""


class WorldJudge:
    """The synthetic world's exact parser: scored against the scene, not against the wording."""

    def __init__(self, world: str) -> None:
        from pipelines.world.judge import COLUMNS
        from pipelines.world.scene import WorldConfig

        self.metrics: tuple[str, ...] = COLUMNS
        self.weights: dict[str, Any] = {}
        self.config = WorldConfig.small() if world == "small" else WorldConfig.rich()

    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        from pipelines.world.judge import judge
        from pipelines.world.parse import parse_arrays
        from pipelines.world.scene import Scene

        meant = [Scene.from_json(scene) for scene in scenes if scene is not None]
        return judge(parse_arrays(pictures, self.config), meant, form, self.config)  # type: ignore[arg-type]


class ClipJudge:
    """CLIP similarity of picture and prompt. Blind to counts and relations; see its literature."""

    metrics: tuple[str, ...] = ("clip_similarity",)

    def __init__(self, model: str, pretrained: str | None, device: str = "auto") -> None:
        from curate.scoring.scorers.clip import Clip, ClipModel

        scorer = Clip(model, pretrained, device=device)
        self.weights: dict[str, Any] = scorer.signature()
        self.clip = ClipModel(scorer)

    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        images = self.clip.embed_pictures(pictures)
        texts = self.clip.embed_texts(list(prompts))
        return {"clip_similarity": np.sum(images * texts, axis=1).astype(np.float64)}


def make_judge(settings: AblateSettings, device: str) -> Judge:
    """The judge that the settings name, on the device that the models are trained on.

    Raises:
        ConfigError: its weights are not there or do not load.
    """
    if settings.judge == "world":
        return WorldJudge(settings.world)
    return ClipJudge(settings.clip_model, settings.clip_pretrained, device)


def target_pictures(
    scenes: Sequence[str | None], resolution: int, settings: AblateSettings
) -> Pictures:
    """What the prompts meant, `(N, R, R, 3)` uint8: true scenes, and black where none is known."""
    if settings.judge != "world":
        return np.zeros((len(scenes), resolution, resolution, 3), np.uint8)
    from pipelines.world.render import render
    from pipelines.world.scene import Scene, WorldConfig

    config = WorldConfig.small() if settings.world == "small" else WorldConfig.rich()
    return render([Scene.from_json(scene) for scene in scenes if scene], config, resolution)
