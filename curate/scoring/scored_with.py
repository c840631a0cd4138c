"""Which CLIP model made a column of similarities: noted by whoever scores, asked by presets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.base.column_marks import noted_in
from curate.store.dataset import Dataset

MODELS = b"caplab_models"
"""Note of a scores file: similarity column -> "MODEL/PRETRAINED"."""

# How published lists name the model in a column's name; LAION's `similarity` is by ViT-B/32.
_IN_NAME: Sequence[tuple[str, str]] = (
    (r"(^|_)(vit)?_?b_?32(_|$)", "ViT-B-32/openai"),
    (r"(^|_)(vit)?_?l_?14(_|$)", "ViT-L-14/openai"),
    (r"^(imported_)?similarity$", "ViT-B-32/openai"),
)


def similarity_models(scorers: Iterable[Any]) -> dict[str, str]:
    """Similarity column -> "MODEL/PRETRAINED" of the scorer that adds it."""
    return {
        column: "/".join(filter(None, (scorer.source, scorer.pretrained)))
        for scorer in scorers
        for column in scorer.adds
        if column.startswith("clip_similarity") and hasattr(scorer, "pretrained")
    }


def clip_models(dataset: Dataset, columns: Sequence[str]) -> Mapping[str, str | None]:
    """Column of image-text similarities -> "MODEL/PRETRAINED", None where nothing tells.

    A column that we scored is told by the note in its files (the first shard's speaks for all: one
    run scores them all), one that was imported by its name, as DataComp's clip_l14_similarity_score
    and COYO's clip_similarity_vitb32 are. A dataset from before the note tells what it was curated
    with.
    """
    files = dataset.table_files("scores")
    by_us = noted_in(files[0], MODELS) if files else {}
    settings = dataset.record().get("settings") or {}
    models: dict[str, str | None] = {}
    for column in columns:
        if "similarity" not in column.lower():
            continue
        if column in by_us:
            models[column] = by_us[column]
        elif column == "clip_similarity":
            told = (settings.get("clip_model"), settings.get("clip_pretrained"))
            models[column] = "/".join(filter(None, told)) or None
        else:
            named = (model for pattern, model in _IN_NAME if re.search(pattern, column.lower()))
            models[column] = next(named, None)
    return models
