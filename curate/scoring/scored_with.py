"""Which CLIP model made a column of similarities: noted by whoever scores, asked by presets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from curate.store.dataset import Dataset

NOTE = b"caplab_models"
"""Metadata of a scores file: similarity column -> "MODEL/PRETRAINED", as JSON."""

# How published lists name the model in a column's name; LAION's `similarity` is by ViT-B/32.
_IN_NAME: Sequence[tuple[str, str]] = (
    (r"(^|_)(vit)?_?b_?32(_|$)", "ViT-B-32/openai"),
    (r"(^|_)(vit)?_?l_?14(_|$)", "ViT-L-14/openai"),
    (r"^(imported_)?similarity$", "ViT-B-32/openai"),
)


def models_note(scorers: Iterable[Any], before: Mapping[bytes, bytes] | None) -> dict[bytes, bytes]:
    """The note for a scores file that these scorers write, over what stood there `before`."""
    models = json.loads((before or {}).get(NOTE, b"{}"))
    for scorer in scorers:
        for column in scorer.adds:
            if column.startswith("clip_similarity") and hasattr(scorer, "pretrained"):
                models[column] = "/".join(filter(None, (scorer.model, scorer.pretrained)))
    return {NOTE: json.dumps(models, sort_keys=True).encode()}


def clip_models(dataset: Dataset, columns: Sequence[str]) -> Mapping[str, str | None]:
    """Column of image-text similarities -> "MODEL/PRETRAINED", None where nothing tells.

    A column that we scored is told by the note in its files (the first shard's speaks for all: one
    run scores them all), one that was imported by its name, as DataComp's clip_l14_similarity_score
    and COYO's clip_similarity_vitb32 are. A dataset from before the note tells what it was curated
    with.
    """
    files = dataset.table_files("scores")
    notes = (pq.read_schema(files[0]).metadata or {}) if files else {}
    noted: dict[str, str] = json.loads(notes.get(NOTE, b"{}"))
    settings = dataset.record().get("settings") or {}
    models: dict[str, str | None] = {}
    for column in columns:
        if "similarity" not in column.lower():
            continue
        if column in noted:
            models[column] = noted[column]
        elif column == "clip_similarity":
            told = (settings.get("clip_model"), settings.get("clip_pretrained"))
            models[column] = "/".join(filter(None, told)) or None
        else:
            named = (model for pattern, model in _IN_NAME if re.search(pattern, column.lower()))
            models[column] = next(named, None)
    return models
