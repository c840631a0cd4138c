"""Settings of judging captions."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from curate.base.settings import Settings


class JudgeSettings(Settings):
    """Which captions are judged, on how many pictures, by what."""

    GROUPS: ClassVar[dict[str, str]] = {
        "Caption sets": "sources",
        "Samples and intervals": "sample",
    }
    EXPERT: ClassVar[str] = "retrieval_groups fingerprint_pictures draws"

    sources: tuple[str, ...] = Field(
        (), description="Who wrote the captions: alt or a captioner's source; all by default."
    )
    kinds: tuple[str, ...] = Field(
        (), description="Caption kinds: alt, short, descriptive, ...; all by default."
    )
    truth: str | None = Field(
        None,
        description="What the pictures show: COCO's instances.json, a .jsonl of objects, "
        "attributes and relations, a synthetic web's truth.parquet, or world for the one that "
        "stands beside the list of URLs.",
    )
    sample: int = Field(
        5000,
        ge=2,
        description="Pictures on which all sets are compared, chosen by a hash of the key; counts "
        "and lengths are of all captions.",
    )
    retrieval_groups: int = Field(
        16,
        ge=0,
        description="Groups of 64 pictures among which each caption looks for its own; 0 leaves "
        "this measure, and CLIP's text tower, out.",
    )
    fingerprint_pictures: int = Field(
        1000,
        ge=0,
        description="Pictures of a fingerprint test (can a classifier tell who wrote it?); 0 "
        "leaves it out.",
    )
    t5_tokenizer: str = Field(
        "",
        description="Folder or hub id of a T5 tokenizer, to count tokens that the captions table "
        "does not tell; empty counts none.",
    )
    draws: int = Field(2000, ge=100, description="Bootstrap draws of an interval over pictures.")
    seed: int = Field(0, description="Of the sample, the groups and the intervals.")
