"""Settings of `caplab upsample`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from curate.base.errors import ConfigError
from curate.base.settings import OPERATIONAL, nearest
from recaption.engines.settings import EngineSettings

UPSAMPLE_GATES: Mapping[str, str] = {
    "empty": "no letter and no digit",
    "refusal": "the model refuses, speaks about itself or reports an error",
    "reasoning": "the model thinks aloud",
    "options": "several rewrites to choose from",
    "garbled": "a character of a word was lost",
    "prompt_leak": "repeats the instruction, an example or chat markers",
    "loop": "repeats itself",
    "url_or_markup": "HTML, Markdown, JSON or an unquoted web address",
    "truncated": "cut off, and holds no whole sentence",
    "too_short": "fewer words than min_words",
    "too_long": "more words than max_words",
    "lost_words": "a word of the prompt that carries meaning is gone",
}
"""Every gate and what it says; the first rejecting one that speaks is a row's reason."""

# A good rewrite may say "kitten" for "cat": words alone cannot tell, so this one only marks.
DEFAULT_REJECTS: tuple[str, ...] = tuple(name for name in UPSAMPLE_GATES if name != "lost_words")


class UpsampleSettings(EngineSettings):
    """How short prompts become descriptive ones, and which rewritten ones to accept."""

    GROUPS: ClassVar[dict[str, str]] = {"Prompts": "prompt_column", "Running": "part_rows"}
    EXPERT: ClassVar[str] = "retry_temperature part_rows stop_after_unaccepted"

    prompt_column: str = Field("prompt", description="Column of a .jsonl or .parquet list.")
    instruction: str = Field(
        "",
        description="Text file with an instruction of your own, {prompt} where the prompt goes; "
        "empty takes the built-in one.",
    )
    min_words: int = Field(15, ge=1, description="Fewer words are too short; DALL-E 3's rule.")
    max_words: int = Field(80, ge=1, description="More words are too long; DALL-E 3's rule.")
    temperature: float = Field(0.0, ge=0.0, le=5.0, description="Of the first try; 0 is greedy.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus sampling; 1 keeps all words.")
    max_new_tokens: int = Field(200, ge=1, description="Output tokens at most.")
    reject: tuple[str, ...] = Field(
        DEFAULT_REJECTS,
        description="Gates that reject; all others only mark. lost_words is one that marks.",
    )
    retries: int = Field(3, ge=0, le=10, description="Further tries, each with another seed.")
    retry_temperature: float = Field(
        0.7, gt=0.0, le=5.0, description="Temperature of a retry, if above `temperature`."
    )
    seed: int = Field(0, ge=0, description="Of every draw; a prompt's own seed derives from it.")
    part_rows: int = Field(
        512,
        ge=1,
        description="Prompts between two durable parts; a kill loses at most one part.",
        json_schema_extra=OPERATIONAL,
    )
    stop_after_unaccepted: int = Field(
        512,
        ge=0,
        description="End the run when so many prompts in a row all failed or were rejected; 0 "
        "never ends it.",
        json_schema_extra=OPERATIONAL,
    )
    retry_failed: bool = Field(
        False,
        description="Ask again for prompts that failed (not those that a gate rejected).",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("reject")
    @classmethod
    def _known_gates(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in UPSAMPLE_GATES:
                raise ValueError(
                    f"there is no gate {name!r}; {nearest(name, list(UPSAMPLE_GATES))}"
                )
        return names

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.min_words > self.max_words:
            raise ConfigError("min_words is above max_words: no text could be accepted.")
        return self
