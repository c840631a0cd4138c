"""Which CLIP model made a column of similarities."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from curate.dataset import Dataset

# How published lists name the model in a column's name.
_IN_NAME: Sequence[tuple[str, str]] = (
    (r"(^|_)(vit)?_?b_?32(_|$)", "ViT-B-32/openai"),
    (r"(^|_)(vit)?_?l_?14(_|$)", "ViT-L-14/openai"),
)


def clip_models(dataset: Dataset, columns: Sequence[str]) -> Mapping[str, str | None]:
    """Column of image-text similarities -> "MODEL/PRETRAINED", None where nothing tells.

    `clip_similarity` is by the model that the dataset was curated with. Another column's name may
    tell its model, as DataComp's clip_l14_similarity_score and COYO's clip_similarity_vitb32 do;
    LAION's `similarity` is by ViT-B/32.
    """
    settings = dataset.record().get("settings") or {}
    models: dict[str, str | None] = {}
    for column in columns:
        if "similarity" not in column.lower():
            continue
        if column == "clip_similarity":
            model, tag = settings.get("clip_model"), settings.get("clip_pretrained")
            models[column] = f"{model}/{tag}" if model and tag else model
        elif column == "similarity":
            models[column] = "ViT-B-32/openai"
        else:
            named = (model for pattern, model in _IN_NAME if re.search(pattern, column.lower()))
            models[column] = next(named, None)
    return models
