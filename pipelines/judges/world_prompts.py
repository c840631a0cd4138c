"""Prompts of the synthetic world: held-out scenes, the same in every form and wording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from pipelines.judges.prompts import prompts_table, read_rows
from pipelines.judges.world_settings import WorldPromptSettings
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.writers import habitual_descriptive, habitual_short, upsample


def world_prompts(settings: WorldPromptSettings) -> pa.Table:
    """In the schema PROMPTS.

    Raises:
        ConfigError: an option is wrong, or too few scenes are left.
    """
    config = WorldConfig.small() if settings.world == "small" else WorldConfig.rich()
    seen = set()
    if settings.exclude_scenes is not None:
        rows = read_rows(Path(settings.exclude_scenes))
        if not rows or "scene" not in rows[0]:
            raise ConfigError(f"{settings.exclude_scenes} needs a column named 'scene'.")
        seen = {_without_offsets(Scene.from_json(str(row["scene"]))) for row in rows}
    drawn = sample_scenes(config, 4 * settings.scenes, settings.seed)
    scenes = [s for s in drawn if _without_offsets(s) not in seen][: settings.scenes]
    if len(scenes) < settings.scenes:
        raise ConfigError(f"Only {len(scenes)} of {settings.scenes} scenes are new; ask for fewer.")
    short = habitual_short(scenes)
    forms = {
        "descriptive": habitual_descriptive(scenes),
        "short": short,
        "upsampled": upsample(short, settings.seed, config.grid),
    }
    rows_made = {
        (form, text): {
            "form": form,
            "wording": "captioner",
            "intent_id": fingerprint(scene.to_json()),
            "prompt": text,
            "intent": scene.to_json(),
        }
        for form, texts in forms.items()
        for text, scene in zip(texts, scenes, strict=True)
    }
    return prompts_table(list(rows_made.values()))


def _without_offsets(scene: Scene) -> Scene:
    return replace(scene, objects=tuple(replace(o, dx=0, dy=0) for o in scene.objects))
