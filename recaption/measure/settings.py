"""Settings of what is measured of captions, beside the words themselves."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from curate.base.settings import OPERATIONAL, Settings
from curate.scoring.clip_presets import with_preset


class MeasureSettings(Settings):
    """Language, similarity to the picture, tokens, and likeness to other captions."""

    GROUPS: ClassVar[dict[str, str]] = {"Measures": "language"}
    EXPERT: ClassVar[str] = (
        "clip_pretrained clip_margin near_duplicate_threshold near_duplicate_words t5_tokenizer"
    )

    language: str = Field(
        "en",
        description="Language that captions should have, as an ISO 639-1 code; a caption that is "
        "surely in another one is flagged. Empty expects none. Where a prompt has the variable "
        "language, that one counts for its captions.",
    )
    clip_gate: Literal["on", "auto", "off"] = Field(
        "auto",
        description="Compare each caption with its picture by CLIP and flag it below_alt_text "
        "where the alt text fits better; auto: where the dataset has the picture's embeddings.",
    )
    clip_model: str | None = Field(
        None, description="CLIP model of that comparison; none takes the one that scored the data."
    )
    clip_pretrained: str | None = Field(None, description="Its weights, as for `caplab score`.")
    clip_margin: float = Field(
        0.0,
        ge=0.0,
        le=2.0,
        description="How much less a caption's sentences may fit than the alt text's, as cosine.",
    )
    t5_tokenizer: str = Field(
        "auto",
        description="Folder or hub id of the T5 tokenizer that counts t5_tokens; auto: "
        "google-t5/t5-small where it can be had; empty counts none.",
        json_schema_extra=OPERATIONAL,
    )
    near_duplicate_threshold: float = Field(
        0.8,
        ge=0.5,
        le=1.0,
        description="Share of common three-word runs (Jaccard) from which captions of two "
        "pictures nearly repeat each other.",
        json_schema_extra=OPERATIONAL,
    )
    near_duplicate_words: int = Field(
        10,
        ge=1,
        description="Captions of fewer words may repeat: simple scenes are told alike.",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="before")
    @classmethod
    def _short_name(cls, given: Any) -> Any:
        return with_preset(given)

    @field_validator("clip_gate", mode="before")
    @classmethod
    def _not_a_truth(cls, given: Any) -> Any:
        # YAML reads a bare on or off as true or false.
        return ("on" if given else "off") if isinstance(given, bool) else given

    @field_validator("language")
    @classmethod
    def _a_code(cls, language: str) -> str:
        if not re.fullmatch(r"[a-z]{2,3}|", language):
            raise ValueError("give a code of two or three letters such as en, or nothing")
        return language
