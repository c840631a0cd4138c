"""Which prompts of the synthetic world."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.base.settings import Settings


class WorldPromptSettings(Settings):
    """Which prompts."""

    world: Literal["small", "rich"] = Field("small", description="Richness of the world")
    scenes: int = Field(192, gt=0, description="Held-out scenes")
    exclude_scenes: str | None = Field(None, description="Parquet with a column scene")
    seed: int = Field(20_000, ge=0, description="Of scenes and prompts")
