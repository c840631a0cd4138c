"""What a study rests on, read and checked as a whole before a step is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.base.files import read_record
from curate.base.settings import load_settings
from curate.store.dataset import Dataset
from pipelines.ablation.books import Books, arms_of
from pipelines.ablation.judged import JudgeSpec
from pipelines.ablation.pictures import Asked
from pipelines.ablation.runs import RECORD, Run, recipe_mark, run_folder, sampling_of
from pipelines.ablation.settings import AblateSettings, Arm
from pipelines.ablation.trial import check_places, tried_judges
from pipelines.judges.prompts import read_prompts
from recaption.transforms.derivation import Derivation
from train.sample import asked_buckets
from train.settings import TrainSettings, load_train_settings, model_config, settled
from train.text.vocabulary import (
    CutTexts,
    UnknownWords,
    refuse_unknown_words,
)


@dataclass(frozen=True)
class Cell:
    """One arm and seed: its run, which equal arms share, and how it is asked to draw."""

    arm: str
    seed: int
    run: Run
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A declared experiment whose every part was found.

    Attributes:
        asked: what every run draws.
        judges: by their ids, the first one first.
        unknown: words of captions and prompts that the models will not be able to read.
        cut: captions and prompts that are longer than what the models read.
    """

    dataset: Dataset
    cells: list[Cell]
    asked: Asked
    judges: list[JudgeSpec]
    device: str
    precision: str
    unknown: list[UnknownWords] = field(default_factory=list)
    cut: list[CutTexts] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """Distinct training runs, in the order of seeds, then of arms."""
        found: dict[str, Run] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.seed):
            found.setdefault(cell.run.id, cell.run)
        return list(found.values())

    def samplings(self, run: Run) -> list[Mapping[str, Any]]:
        """The ways in which the study asks a run to draw."""
        found: list[Mapping[str, Any]] = []
        for cell in self.cells:
            if cell.run.id == run.id and cell.sampling not in found:
                found.append(cell.sampling)
        return found


def prepare(dataset_dir: Path | str, settings: AblateSettings, out: Path) -> Study:
    """Read, load and check everything: captions, prompts, judges, metric, form and words.

    Args:
        out: of a study that may be there; its device and precision are kept.

    Raises:
        ConfigError: a part is missing or does not fit the others.
        DatasetError: the directory is no dataset.
    """
    dataset = Dataset.open(dataset_dir)
    prompts = prompts_of(settings.prompts)
    check_places(settings, prompts)
    stored = read_record(out / RECORD) if (out / RECORD).exists() else None
    train = {name: train_settings(settings, arm, stored) for name, arm in arms_of(settings)}
    first = next(iter(train.values()))
    resolution = model_config(first).resolution
    judges = tried_judges(settings, prompts, resolution, first.device, judges_added(stored))
    caption_sets = sourced_sets(settings)
    sources = {name: derive_set(dataset, name, own) for name, own in caption_sets.items()}
    books = Books(dataset, settings, sources)
    cells: list[Cell] = []
    runs = Path(settings.runs or out / "runs").absolute()
    folders: dict[str, Path] = {}
    for name, arm in arms_of(settings):
        own, selection = train[name], arm.selection or settings.selection
        asked_buckets(own, arm.ask)
        both = books.indexes(arm, own)
        mark = recipe_mark(own, model_config(own), books.data_of(arm, own))
        folder = folders.setdefault(mark, run_folder(runs, name, mark))
        for seed in settings.seeds_of(name):
            run = Run(
                directory=folder / f"seed-{seed}",
                mark=mark,
                settings=own.model_copy(update={"seed": seed}),
                selection=selection,
                keys=books.keys(selection),
                caption_sources=books.sources_of(arm),
                index=both[0],
            )
            cells.append(Cell(name, seed, run, sampling_of(own, arm.ask)))
    unknown = books.unknown_words(settings, train, prompts)
    refuse_unknown_words(unknown, settings.allow_unknown_words)
    cut = books.cut_texts(settings, model_config(first), prompts)
    asked = Asked(prompts, settings.noises, settings.generation_seed)
    return Study(dataset, cells, asked, judges, first.device, first.precision, unknown, cut)


def prompts_of(prompts: str | Mapping[str, Any]) -> pa.Table:
    """What every run is asked to draw, in the schema PROMPTS.

    Raises:
        ConfigError: the file or an option is wrong.
    """
    if isinstance(prompts, str):
        return read_prompts(Path(prompts))
    from pipelines.judges.world_prompts import world_prompts
    from pipelines.judges.world_settings import WorldPromptSettings

    return world_prompts(load_settings(WorldPromptSettings, None, prompts))


def train_settings(
    settings: AblateSettings, arm: Arm, stored: Mapping[str, Any] | None = None
) -> TrainSettings:
    """The training settings of an arm; arms differ in their captions and `condition_on` alone.

    Device and precision are settled here; those of a `stored` study are kept.
    """
    given: dict[str, Any] = {
        **settings.train,
        "captions": arm.captions,
        "threads": settings.cpus_per_run,
        "allow_unknown_words": settings.allow_unknown_words,
    }
    if arm.missing_captions == "fallback":
        given["missing_captions"] = "fallback"
    if arm.condition_on is not None:
        given["condition_on"] = arm.condition_on
    return settled(load_train_settings(None, given), stored)


def judges_added(stored: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Name -> options of the judges that `caplab judge` added to a stored study."""
    added = (stored or {}).get("judges_added", [])
    return {
        row["name"]: row["options"]
        for row in (stored or {}).get("judges", [])
        if row["name"] in added
    }


def sourced_sets(settings: AblateSettings) -> dict[str, Derivation]:
    """The derived caption sets; one that does not say whose captions takes the study's."""
    whose = settings.caption_sources
    return {
        name: own if own.source else own.model_copy(update={"source": whose.get(own.of)})
        for name, own in settings.caption_sets.items()
    }


def derive_set(dataset: Dataset, name: str, derivation: Derivation) -> str:
    """Write a derived caption set; its source.

    Raises:
        ConfigError: the captions that it is made from are not there.
    """
    from recaption.transforms.derive import derive

    return derive(dataset, name, derivation).source
