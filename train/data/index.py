"""Find the index of a run (train.data.rows), or have it made (train.data.build)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.store.caption_blend import blend_order
from train.data.rows import HELD_OUT, RECORD, ROWS, TRAINING, WEIGHTS, Bucket, TrainingIndex

if TYPE_CHECKING:
    from curate.store.dataset import Dataset
    from train.model_settings import ModelConfig
    from train.settings import TrainSettings

__all__ = [
    "HELD_OUT",
    "RECORD",
    "ROWS",
    "TRAINING",
    "WEIGHTS",
    "Bucket",
    "TrainingIndex",
    "build_index",
    "index_folder",
]


def build_index(
    dataset: Dataset,
    settings: TrainSettings,
    config: ModelConfig,
    selection: str,
    caption_sources: Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
    folder: Path | None = None,
) -> tuple[TrainingIndex, TrainingIndex]:
    """The index of a selection: what is trained on, and what is held out. Made once.

    All caption kinds of which it is clear whose to take are in it, those of the blend and others,
    so that the arms of a study share one index and one vocabulary.

    Args:
        caption_sources: kind -> who wrote it, where several captioners wrote that kind.
        keys: take these samples of the selection alone.
        folder: where indexes lie; None = settings.cache or DATASET/training.

    Raises:
        ConfigError: no such captions or score, it is not clear whose to take, captions of the
            blend are missing and `missing_captions` refuses that, or the held-out share leaves
            nothing on one side.
        DatasetError: no such selection, it is empty, or its samples are not stored.
    """
    from train.data.build import Build, requested

    folder = index_folder(dataset, settings) if folder is None else folder
    request = requested(dataset, settings, config, selection, caption_sources, keys)
    home = folder / f"index-{fingerprint(request)}"
    if not (home / RECORD).exists():
        Build(dataset, settings, request).write(home, keys)
    index = TrainingIndex(home)
    for kind in blend_order(settings.captions):
        if (count := index.lacking[kind]) and settings.missing_captions != "fallback":
            raise ConfigError(
                f"{count} of {len(index)} samples have no {kind} caption; write them, or set "
                f"missing_captions to drop to leave these samples out, or to fallback to show them "
                f"with another kind of the blend."
            )
    return index, TrainingIndex(home, HELD_OUT)


def index_folder(dataset: Dataset, settings: TrainSettings) -> Path:
    """Where indexes and caches of a dataset lie."""
    return settings.cache or dataset.directory / "training"
