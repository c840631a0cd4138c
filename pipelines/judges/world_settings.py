"""What is asked for of the synthetic world, and which world judges it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from curate.base.settings import Settings

World = Literal["small", "rich"]
Form = Literal["descriptive", "short", "upsampled", "alt", "tags", "json"]
Wording = Literal["captioner", "varied", "place-first", "typed"]


class WorldJudgeSettings(Settings):
    """The world whose pictures are read."""

    world: World = Field("small", description="Richness of the judged world")


class WorldPromptSettings(Settings):
    """Which scenes are asked for, and in what words."""

    world: World = Field("small", description="Richness of the world that is asked for")
    scenes: int = Field(192, gt=0, description="Scenes that were never trained on, asked in words")
    forms: tuple[Form, ...] = Field(
        ("descriptive", "short", "upsampled", "alt"),
        min_length=1,
        description="Forms of prompts; tags and json ask for the scene as such captions would",
    )
    wordings: tuple[Wording, ...] = Field(
        ("captioner", "varied", "place-first", "typed"),
        min_length=1,
        description="Wordings of descriptive and short prompts (short ones are never place-first); "
        "up-sampled prompts are in the captioner's words, alt texts, tags and JSON in their own",
    )
    seed: int = Field(20_000, ge=0, description="Of the scenes and their wordings")
    exclude_scenes: str | None = Field(
        None, description="Parquet with a column scene: scenes that were trained on, not to ask for"
    )
    held_out_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the scenes that hold a colour-shape pair of no training picture",
    )

    @field_validator("forms", "wordings")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("every name may stand only once")
        return names
