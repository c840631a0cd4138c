"""Settings of `caplab search`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.base.settings import Device, Settings


class SearchSettings(Settings):
    """What to look for, among which samples."""

    text: str | None = Field(None, description="What the picture shows, in words.")
    like: str | None = Field(
        None,
        description="A picture to find others like: the key of a stored sample, for which no model "
        "is loaded, or a picture file.",
    )
    count: int = Field(20, ge=1, le=10_000, description="Pictures to print at most.")
    clip: str | None = Field(
        None,
        description="Label of a further CLIP model (--more-clips) whose embeddings to search; "
        "without it the main one's.",
    )
    where: str = Field(
        "true",
        description="Only samples that pass this rule, as of `caplab select --where`, such as "
        '"aesthetic >= 5 and not duplicate".',
    )
    selection: str | None = Field(None, description="Only samples of this stored selection.")
    format: Literal["table", "jsonl"] = Field(
        "table", description="Lines for a person, or one JSON object a line."
    )
    device: Device = Field("auto", description="Of the CLIP model; cpu, cuda, cuda:1 or auto.")

    @model_validator(mode="after")
    def _one_question(self) -> SearchSettings:
        if (self.text is None) == (self.like is None):
            raise ValueError("give a text, or --like with a key or a picture file, and not both")
        if self.text is not None and not self.text.strip():
            raise ValueError("the text is empty")
        return self
