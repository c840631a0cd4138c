"""How large the demo is. The defaults are the committed demo; smaller ones serve tests."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from curate.base.settings import OPERATIONAL
from pipelines.runners.settings import RunnerSettings


class DemoSettings(RunnerSettings):
    """Sizes and budgets of the demo, counted in rows and steps so that machines agree."""

    GROUPS: ClassVar[dict[str, str]] = {"Demo": "rows", "Running": "workers"}

    rows: int = Field(6000, gt=0, description="URLs of the synthetic web")
    port: int = Field(8765, gt=0, lt=65536, description="Loopback port that serves the pictures")
    seed: int = Field(0, ge=0, description="Of the synthetic web")
    rows_per_shard: int = Field(500, gt=0, description="Rows of the URL list a shard")
    steps: int = Field(400, gt=0, description="Steps of every run of the study")
    seeds: int = Field(3, gt=0, description="Training seeds an arm")
    scenes: int = Field(96, gt=0, description="Scenes, none trained on, that every model draws")
    noises: int = Field(1, gt=0, description="Pictures of a prompt")
    model: str = Field("world-small", description="Model preset of all runs")
    workers: int = Field(2, gt=0, description="Workers side by side", json_schema_extra=OPERATIONAL)
