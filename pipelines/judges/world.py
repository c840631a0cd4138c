"""The synthetic world as a judge: its exact parser, held against the scene that was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from pipelines.judges.protocol import Judge, Pictures
from pipelines.judges.world_bounds import world_bounds
from pipelines.judges.world_settings import World, WorldJudgeSettings
from pipelines.world.judge import COLUMNS, Asked, judge
from pipelines.world.parse import Reading, read
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig

if TYPE_CHECKING:
    import pyarrow as pa


class WorldJudge(Judge):
    """Scored against the scene, not against the wording.

    Descriptive prompts, tags and JSON ask for the whole scene, all others for its main object.
    """

    Options = WorldJudgeSettings
    metrics = COLUMNS
    limits = (
        "The pictures are drawn by a program: eight colours, six shapes, four places in the small "
        "world. Nothing here shows how captions act on photographs.",
        "The parser calls an object malformed that is softer or further off its place than it "
        "knows; so hits are also given among well-formed objects and by a forced choice, in which "
        "every cell is read as what it is nearest to.",
        "A short prompt is met by its object among others, so a picture of many objects meets some "
        "by luck: how many, the floor of hedging says.",
    )

    def __init__(self, options: WorldJudgeSettings, device: str = "cpu") -> None:
        super().__init__(options, device)
        self.config = world_config(options.world)

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        """The columns of `pipelines.world.judge.judge`.

        Raises:
            ConfigError: an intent is no scene of this world.
        """
        return self.score_reading(read(pictures, self.config), asked)

    def score_reading(self, reading: Reading, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        """As `score`, of N pictures that were read."""
        scenes = scenes_of(asked)
        whole = np.array([asks_for(form) == "scene" for form in asked.column("form").to_pylist()])
        try:
            of_scene = judge(reading, scenes, "scene", self.config)
            of_main = judge(reading, scenes, "main", self.config)
        except ValueError as error:
            raise ConfigError(f"The prompts are of another world: {error}") from error
        return {name: np.where(whole, of_scene[name], of_main[name]) for name in COLUMNS}

    def targets(self, asked: pa.Table, resolution: int) -> Pictures:
        """The scenes that were meant, drawn at any resolution."""
        return render(scenes_of(asked), self.config, resolution)

    def bounds(self, asked: pa.Table, resolution: int) -> pa.Table:
        """Ceiling, floors and what softness costs; see `world_bounds`."""
        return world_bounds(asked, self.score_reading, self.config, resolution)


def world_config(world: World) -> WorldConfig:
    """The world of that name."""
    return WorldConfig.small() if world == "small" else WorldConfig.rich()


def asks_for(form: str) -> Asked:
    """What a prompt of that form asks for: the scene, or its main object alone."""
    return "scene" if form in ("descriptive", "tags", "json") else "main"


def scenes_of(prompts: pa.Table) -> list[Scene]:
    """What each row of PROMPTS means.

    Raises:
        ConfigError: an intent is no scene.
    """
    scenes = []
    for intent in prompts.column("intent").to_pylist():
        try:
            scenes.append(Scene.from_json(intent))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"The world judge scores scenes of the synthetic world alone, and the intent "
                f"{str(intent)[:60]!r} is none; take another judge for these prompts."
            ) from error
    return scenes
