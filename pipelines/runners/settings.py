"""Who does the work of a command; imports nothing heavy, for every command has these settings."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from curate.base.settings import OPERATIONAL, Settings

RunnerName = Literal["auto", "ray", "local"]


class RunnerSettings(Settings):
    """Where the workers of a command live. What they write is the same."""

    GROUPS: ClassVar[dict[str, str]] = {"Running": "runner"}

    runner: RunnerName = Field(
        "auto",
        description="Where workers run: local (processes of this machine), ray, or auto: Ray where "
        "a cluster's address is known or this machine has several GPUs, else local.",
        json_schema_extra=OPERATIONAL,
    )
    ray_address: str | None = Field(
        None,
        description="Address of a Ray cluster, such as 10.0.0.1:6379; by default RAY_ADDRESS.",
        json_schema_extra=OPERATIONAL,
    )


class WorkerSettings(RunnerSettings):
    """How many workers a command has, and what each may use."""

    workers: int = Field(
        2, gt=0, description="Workers side by side.", json_schema_extra=OPERATIONAL
    )
    gpus_per_worker: float = Field(
        0.0, ge=0, description="GPUs a worker that has a model.", json_schema_extra=OPERATIONAL
    )
