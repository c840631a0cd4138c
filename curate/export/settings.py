"""Settings of an export."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from curate.base.errors import ConfigError
from curate.base.settings import OPERATIONAL, CaptionSources, Settings

Format = Literal["webdataset", "parquet", "folder"]
FOLDER_LAYOUTS = ("huggingface", "kohya", "simpletuner")


class ExportSettings(Settings):
    """What to export and how."""

    GROUPS: ClassVar[dict[str, str]] = {"What is exported": "selection", "Layout": "format"}
    EXPERT: ClassVar[str] = "memory_limit samples_per_shard"

    selection: str = Field("default", description="Selection to export.")
    captions: dict[str, float] = Field(
        {"alt": 1.0},
        description="One caption kind, or the share of each, as in descriptive=0.95,alt=0.05; "
        "which picture takes which is drawn by hash, as in training.",
    )
    caption_sources: CaptionSources = Field(
        {},
        description="Kind -> who wrote it, where several captioners wrote that kind; a+b takes "
        "b's for pictures that have none by a.",
    )
    missing_captions: Literal["drop", "fallback"] = Field(
        "drop",
        description="A picture that lacks a kind of the blend is left out (drop), or takes another "
        "kind of the blend (fallback).",
    )
    format: Format = Field("webdataset", description="webdataset, parquet or folder.")
    layout: str = Field(
        "huggingface",
        description="Of the folder format: huggingface (imagefolder with metadata.jsonl), kohya "
        "(sd-scripts: .txt beside each picture, JSON and TOML) or simpletuner (.txt, "
        "metadata.parquet, multidatabackend.json); or one of your own as module:Class.",
    )
    samples_per_shard: int = Field(
        10_000,
        gt=0,
        description="Most samples a shard; all shards are equally full, give or take one.",
    )
    order: Literal["shuffle", "key"] = Field(
        "shuffle", description="shuffle (by a hash of seed and key) or key."
    )
    seed: int = Field(0, ge=0, description="Of the order and of the caption draws.")
    resolution: int = Field(
        0,
        ge=0,
        description="Training resolution that the kohya and simpletuner configurations name, "
        "pixels; 0 = 512.",
    )
    scores: bool = Field(True, description="Write the samples' scores beside them.")
    title: str = Field("", description="Title of the dataset card; by default the folder's name.")
    memory_limit: str = Field(
        "2GB",
        description="Memory of the planning step; above it, it works on disk.",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("captions", mode="before")
    @classmethod
    def _one_kind_or_shares(cls, value: Any) -> Any:
        return parse_captions(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> ExportSettings:
        if self.layout in FOLDER_LAYOUTS[1:] and self.format != "folder":
            raise ValueError(f"layout {self.layout} needs format folder")
        return self


def parse_captions(text: str) -> dict[str, Any]:
    """`descriptive` or `descriptive=0.95,alt=0.05`.

    Raises:
        ConfigError: neither of these.
    """
    shares: dict[str, Any] = {}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        kind, separator, share = part.partition("=")
        if (not separator and len(parts) > 1) or not kind:
            raise ConfigError(
                f"{text!r} is neither one caption kind nor shares, as in descriptive=0.95,alt=0.05."
            )
        shares[kind.strip()] = yaml.safe_load(share) if separator else 1.0
    return shares


def check(settings: ExportSettings) -> None:
    """Raise ConfigError for shares that do not sum to 1."""
    from curate.store.caption_blend import check_blend  # brings NumPy

    check_blend(settings.captions)
