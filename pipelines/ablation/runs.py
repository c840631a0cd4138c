"""Training runs of a study: a run's identity is what it learnt from and how, never the study.

RUNS/<arm>-<hash>/seed-<n>/     a run; the hash is of everything but the seed
  run.json, summary.json, ...   the trainer's own files (train.run)
  pictures/*.parquet            what it drew (pipelines.ablation.pictures)
  judged/<judge id>/*.parquet   how that was judged (pipelines.ablation.judged)
RUNS/reference-features/        of the real pictures that judges of sets compare with

Equal arms share a run, whatever they are called. A run of another identity lies elsewhere, so that
nothing is ever overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.base.errors import DatasetError
from curate.base.files import fingerprint, read_json
from train.data.index import TrainingIndex
from train.model_settings import ModelConfig
from train.settings import TrainSettings, model_config, stored_settings

REFERENCE = "reference-features"
"""Below RUNS: what judges of sets keep of the real pictures that they compare with."""
_OF_A_STUDY = re.compile(r".+-([0-9a-f]{16})/(seed-\d+)")
RECORD = "study.json"
"""Which runs make up a study, and how it was declared."""
SAMPLING = ("guidance_scale", "sampling_steps", "sampling_shift", "sampler")
"""Training settings that say how pictures are drawn: of a picture's identity, not of a run's."""
_PLACES = ("model", "seed")
"""What the preset is called, and the seed, which has a folder of its own."""


@dataclass(frozen=True)
class Run:
    """One arm's recipe trained with one seed.

    Attributes:
        directory: RUNS/<arm>-<hash>/seed-<n>.
        mark: the hash.
        settings: with its seed, and as its study says how to draw.
        index: of the pictures and captions that it learns from.
    """

    directory: Path
    mark: str
    settings: TrainSettings
    selection: str
    keys: tuple[str, ...]
    caption_sources: dict[str, str]
    index: TrainingIndex

    @property
    def id(self) -> str:
        """What its pictures' identity begins with."""
        return f"{self.mark}/seed-{self.settings.seed}"

    @property
    def folder(self) -> str:
        """Its place below RUNS."""
        return f"{self.directory.parent.name}/{self.directory.name}"

    @property
    def resolution(self) -> int:
        """Side of its pictures, pixels."""
        return model_config(self.settings).resolution

    @property
    def is_trained(self) -> bool:
        """Whether training has ended; what it wrote is looked at when it is used."""
        summary = self.directory / "summary.json"
        return summary.exists() and read_json(summary).get("steps") == self.settings.steps

    @property
    def to_train(self) -> TrainSettings:
        """The settings to train with: one that was begun keeps how it meant to draw."""
        stored = stored_settings(self.directory / "run.json") or {}
        return self.settings.model_copy(update={n: stored[n] for n in SAMPLING if n in stored})


def studied_id(run: Path) -> str | None:
    """`Run.id` of a run's directory; None of one that is of no study."""
    found = _OF_A_STUDY.fullmatch(f"{run.parent.name}/{run.name}")
    return "/".join(found.groups()) if found else None


def recipe_mark(settings: TrainSettings, config: ModelConfig, data: Mapping[str, str]) -> str:
    """16 hex digits of what a run learns from and how, without its seed.

    Args:
        data: `train.run.data_identity`: captions and pictures by content.
    """
    kept = {n: v for n, v in settings.identity().items() if n not in (*SAMPLING, *_PLACES)}
    return fingerprint(
        {"train": kept, "steps": settings.steps, "model": config.resolved(), "data": dict(data)}
    )


def run_folder(runs: Path, arm: str, mark: str) -> Path:
    """The folder of a recipe: the one that is there, by whatever name, else one named by the arm.

    Raises:
        DatasetError: there are two, so that nobody knows which is meant.
    """
    found = sorted(runs.glob(f"*-{mark}"))
    if len(found) > 1:
        raise DatasetError(f"{found[0]} and {found[1]} are runs of one recipe; remove one of them.")
    return found[0] if found else runs / f"{arm}-{mark}"


def sampling_of(settings: TrainSettings, ask: Mapping[str, float]) -> dict[str, Any]:
    """How pictures are drawn, as part of their identity and as arguments of `generate`."""
    return {
        "guidance_scale": settings.guidance_scale,
        "steps": settings.sampling_steps,
        "shift": settings.sampling_shift,
        "sampler": settings.sampler,
        "conditions": dict(ask),
    }
