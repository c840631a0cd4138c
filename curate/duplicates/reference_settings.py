"""Settings of the search for pictures of a reference set."""

from __future__ import annotations

from pydantic import Field

from curate.duplicates.search import DuplicateSettings

UNUSED = ("quality", "embedding_similarity", "semdedup_epsilon")
"""Settings of duplicate search that say nothing here."""


class ReferenceSettings(DuplicateSettings):
    """Which reference set, and what counts as showing one of its pictures."""

    name: str | None = Field(
        None, description="Name of the reference set; by default that of its folder."
    )
