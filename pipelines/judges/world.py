"""The synthetic world as a judge: its exact parser, against the scene that was meant."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate.base.settings import Settings
from pipelines.judges.protocol import Judge, Pictures
from pipelines.world.judge import COLUMNS, judge
from pipelines.world.parse import parse_arrays
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig


class WorldOptions(Settings):
    """Which world."""

    world: Literal["small", "rich"] = Field("small", description="Richness of the judged world")


class WorldJudge(Judge):
    """Scored against the scene, not against the wording."""

    Options = WorldOptions
    options: WorldOptions
    metrics = COLUMNS

    @property
    def config(self) -> WorldConfig:
        """The judged world."""
        return WorldConfig.small() if self.options.world == "small" else WorldConfig.rich()

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        forms = np.array(asked.column("form").to_pylist())
        found = {name: np.full(len(forms), np.nan) for name in self.metrics}
        for form in dict.fromkeys(forms.tolist()):
            here = np.flatnonzero(forms == form)
            known = form if form in ("short", "upsampled") else "descriptive"
            parsed = parse_arrays(pictures[here], self.config)
            own = judge(parsed, _scenes(asked.take(here)), known, self.config)
            for name in self.metrics:
                found[name][here] = own[name]
        return found

    def targets(self, asked: pa.Table, resolution: int) -> Pictures:
        return render(_scenes(asked), self.config, resolution)


def _scenes(asked: pa.Table) -> list[Scene]:
    return [Scene.from_json(scene) for scene in asked.column("intent").to_pylist()]
