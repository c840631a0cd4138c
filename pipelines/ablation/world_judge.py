"""The synthetic world as an ablation's judge: its scenes, its prompts, its exact parser.

The only tie of the ablation to `pipelines.world`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from pipelines.ablation.judges import Judge, Pictures
from pipelines.ablation.prompts import PROMPTS, read_rows
from pipelines.ablation.settings import AblateSettings
from pipelines.world.judge import COLUMNS, judge
from pipelines.world.parse import parse_arrays
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.writers import habitual_descriptive, habitual_short, upsample


class WorldJudge(Judge):
    """Scored against the scene, not against the wording."""

    metrics = COLUMNS
    limits = (
        "Descriptive and up-sampled prompts are worded exactly as the world's captioner words its "
        "captions, so both favour the arm that was trained on descriptive captions; how far its "
        "lead holds under other wordings was not measured.",
        "The pictures are drawn by a program: eight colours, six shapes, four places. Nothing here "
        "shows how captions act on photographs.",
        "The parser counts what it cannot read as malformed; arms that draw many malformed objects "
        "lose on every metric, so malformed objects are reported beside them.",
    )

    def __init__(self, settings: AblateSettings, device: str = "cpu") -> None:
        super().__init__(settings, device)
        self.config = WorldConfig.small() if settings.world == "small" else WorldConfig.rich()

    def score(
        self, pictures: Pictures, prompts: Sequence[str], scenes: Sequence[str | None], form: str
    ) -> dict[str, NDArray[np.float64]]:
        return judge(parse_arrays(pictures, self.config), _scenes(scenes), form, self.config)  # type: ignore[arg-type]

    def targets(self, scenes: Sequence[str | None], resolution: int) -> Pictures:
        return render(_scenes(scenes), self.config, resolution)

    def prompts(self) -> pa.Table:
        """Held-out scenes in three wordings; the same index is the same scene in each.

        Raises:
            ConfigError: too few scenes are left that were never trained on.
        """
        seen = set()
        if self.settings.exclude_scenes is not None:
            rows = read_rows(Path(self.settings.exclude_scenes))
            if not rows or "scene" not in rows[0]:
                raise ConfigError(f"{self.settings.exclude_scenes} needs a column named 'scene'.")
            seen = {_without_offsets(Scene.from_json(str(row["scene"]))) for row in rows}
        # More than asked for, so that enough are left when those that were seen are dropped.
        drawn = sample_scenes(self.config, 4 * self.settings.scenes, self.settings.prompt_seed)
        unseen = [scene for scene in drawn if _without_offsets(scene) not in seen]
        scenes = unseen[: self.settings.scenes]
        if len(scenes) < self.settings.scenes:
            raise ConfigError(
                f"Only {len(scenes)} of {self.settings.scenes} scenes were never trained on; "
                f"ask for fewer scenes."
            )
        short = habitual_short(scenes)
        forms = {
            "descriptive": habitual_descriptive(scenes),
            "short": short,
            "upsampled": upsample(short, self.settings.prompt_seed, self.config.grid),
        }
        rows = [
            {"prompt_form": form, "prompt_index": index, "prompt": text, "scene": scene.to_json()}
            for form, texts in forms.items()
            for index, (text, scene) in enumerate(zip(texts, scenes, strict=True))
        ]
        return pa.Table.from_pylist(rows, schema=PROMPTS)


def _scenes(scenes: Sequence[str | None]) -> list[Scene]:
    return [Scene.from_json(scene) for scene in scenes if scene is not None]


def _without_offsets(scene: Scene) -> Scene:
    """A scene shifted by a pixel is the same scene to a caption, so it counts as seen."""
    return replace(scene, objects=tuple(replace(o, dx=0, dy=0) for o in scene.objects))
