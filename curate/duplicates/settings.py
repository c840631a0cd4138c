"""What counts as a copy, which copy to keep, and which reference set to look for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from curate.base.settings import OPERATIONAL, Settings

MAX_RADIUS = 11
"""Bits of 64 by which hashes may differ at most, for the joins of curate.duplicates.candidates."""


@dataclass(frozen=True)
class CopyLimits:
    """What counts as a copy. For rich pictures disagreement may be twice, residual 1.5 times."""

    share: float = 0.6
    disagreement: float = 0.125
    residual: float = 0.18


class DuplicateSettings(Settings):
    """What counts as a copy, and which copy to keep."""

    GROUPS: ClassVar[dict[str, str]] = {"Duplicates": "near_bits", "Running": "memory_limit"}
    EXPERT: ClassVar[str] = (
        "descriptor_similarity copy_share copy_disagreement copy_residual neighbours "
        "look_alikes memory_limit duplicate_threads"
    )

    near_bits: int = Field(
        8,
        ge=0,
        le=MAX_RADIUS,
        description="Bits of 64 by which perceptual hashes of a candidate may differ.",
    )
    descriptor_similarity: float | None = Field(
        0.5,
        description="Least cosine of the copy descriptors of a candidate; none leaves candidates "
        "to the hashes alone.",
    )
    copy_share: float = Field(
        CopyLimits.share,
        ge=0,
        le=1,
        description="Least share of the places with detail in which a copy's detail agrees.",
    )
    copy_disagreement: float = Field(
        CopyLimits.disagreement,
        ge=0,
        description="Most that may differ in a copy (labels, logos), as a share of what agrees; "
        "twice as much in photographs that are full of detail.",
    )
    copy_residual: float = Field(
        CopyLimits.residual,
        gt=0,
        description="Largest difference of light elsewhere, as a share of the picture's contrast.",
    )
    embedding_similarity: float | None = Field(
        0.9,
        description="Least cosine of CLIP image embeddings of a candidate; none skips this level.",
    )
    neighbours: int = Field(
        4, ge=1, description="Nearest descriptors and embeddings to look at for each sample."
    )
    look_alikes: int = Field(
        64,
        ge=1,
        description="Likeliest candidates of hashes to look at for each sample; a search that "
        "leaves some out says so.",
    )
    quality: list[str] = Field(
        ["width * height", "clip_similarity"],
        description="SQL expressions over a sample's columns, each larger for the better copy; "
        "later ones break ties, and the key does last.",
    )
    semdedup_epsilon: float | None = Field(
        None,
        ge=0,
        le=2,
        description="SemDeDup's own rule as a further level, `semdedup`: embeddings with a cosine "
        "of 1 - epsilon or more are duplicates, whatever the pictures show. 0.01 to 0.07 are in "
        "use for CLIP ViT-L/14; larger drops more. None skips it.",
    )
    memory_limit: str = Field(
        "2GB",
        description="Resident memory of the search; blocks shrink and tables are made in parts to "
        "stay within it.",
        json_schema_extra=OPERATIONAL,
    )
    duplicate_threads: int = Field(
        1,
        ge=1,
        description="Threads of the searches and of the look at pixels.",
        json_schema_extra=OPERATIONAL,
    )


UNUSED = ("quality", "embedding_similarity", "semdedup_epsilon")
"""Settings of duplicate search that say nothing here."""


class ReferenceSettings(DuplicateSettings):
    """Which reference set, and what counts as showing one of its pictures."""

    GROUPS: ClassVar[dict[str, str]] = {"References": "name"}

    name: str | None = Field(
        None, description="Name of the reference set; by default that of its folder."
    )
