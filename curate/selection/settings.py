"""Settings of `caplab select`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from curate.base.duplicate_methods import METHODS, WIDEST
from curate.base.settings import OPERATIONAL, Settings


class SelectSettings(Settings):
    """Which samples to select, and under which name."""

    GROUPS: ClassVar[dict[str, str]] = {
        "Rules": "name",
        "Duplicates": "keep_duplicates",
        "Balance": "balance",
    }
    EXPERT: ClassVar[str] = "reference_clusters reference_embedding preset_columns"

    name: str = Field(
        "default",
        description="Name of the selection: letters, digits, dots, dashes, underscores; the "
        "preset's name where there is one.",
    )
    where: str = Field(
        "true",
        description="SQL expression over the columns of a sample, such as "
        '"clip_similarity >= 0.28 and aesthetic >= 5 and nsfw < 0.5"; '
        "top_fraction(clip_similarity, 0.3) is true for the best 30%, in_selection('a') for the "
        "samples of another selection.",
    )
    preset: str | None = Field(
        None,
        description="A published recipe, in addition to --where; --list-presets shows them all.",
    )
    preset_values: dict[str, float] = Field(
        {}, description="Numbers of the preset in place of its own, such as fraction=0.2."
    )
    preset_columns: dict[str, str] = Field(
        {},
        description="What stands for a quantity that the preset needs: a column or an SQL "
        "expression, such as similarity_b32=my_b32_score.",
    )
    any_clip_model: bool = Field(
        False,
        description="Apply the preset's thresholds to similarities of another CLIP model than "
        "its source used, or of an unknown one.",
    )
    reference: str | None = Field(
        None,
        description="Embeddings to be near to (a dataset, .npy or .parquet); adds the column "
        "near_reference: the sample's cluster is nearest to one of them.",
    )
    reference_clusters: int = Field(
        1000, ge=1, description="Clusters of image embeddings for near_reference."
    )
    reference_embedding: str = Field(
        "image", description="Column of the embeddings table to cluster for near_reference."
    )
    keep_duplicates: bool = Field(
        False, description="Keep all copies; otherwise only the best of each group of duplicates."
    )
    duplicate_level: str = Field(
        WIDEST,
        description=f"Which pairs make a copy: {', '.join(METHODS)} (each with those before), or "
        f"{WIDEST}: all that were found.",
    )
    quality: list[str] = Field(
        [],
        description="SQL expressions over a sample's columns, each larger for the better copy, "
        "later ones breaking ties; by default the larger picture, then the higher "
        "clip_similarity where there is one.",
    )
    balance: str | None = Field(
        None,
        description="SQL expression over a sample's columns, such as language: its groups get "
        "equal total weight, stored as a weight a row for training and export.",
    )
    cap: int | None = Field(
        None, gt=0, description="Most rows that a group of --balance keeps, chosen by hash."
    )
    overwrite: bool = Field(
        False,
        description="Replace a selection of this name that has other rules or older tables.",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="before")
    @classmethod
    def _named_after_its_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") and "name" not in values:
            return {**values, "name": values["preset"]}
        return values

    @model_validator(mode="after")
    def _cap_of_groups(self) -> SelectSettings:
        if self.cap is not None and self.balance is None:
            raise ValueError("cap bounds the groups of balance; give balance as well")
        return self
