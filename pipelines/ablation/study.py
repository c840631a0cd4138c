"""What a study rests on, read and checked as a whole before a step is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import read_record
from curate.base.settings import load_settings, nearest
from curate.store.dataset import Dataset
from pipelines.ablation.books import Books, arms_of
from pipelines.ablation.judged import (
    JudgeSpec,
    checked_scores,
    refuse_shared_metrics,
    said_by,
)
from pipelines.ablation.pictures import Asked
from pipelines.ablation.runs import RECORD, Run, recipe_mark, run_folder, sampling_of
from pipelines.ablation.settings import AblateSettings, Arm
from pipelines.judges.prompts import read_prompts
from pipelines.judges.protocol import Judge, Pictures, SetJudge
from recaption.transforms.derivation import Derivation
from train.sample import asked_buckets
from train.settings import TrainSettings, load_train_settings, model_config, settled
from train.text.vocabulary import (
    CutTexts,
    UnknownWords,
    refuse_unknown_words,
)

ALL = "all"
"""The wording that stands for all of them."""
_TRIED = 64
"""Pictures that each judge looks at before a step is trained, at most."""


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
    """The training settings of an arm; arms differ in `captions` and `condition_on` alone.

    Device and precision are settled here; those of a `stored` study are kept.
    """
    given: dict[str, Any] = {
        **settings.train,
        "captions": arm.captions,
        "threads": settings.cpus_per_run,
        "allow_unknown_words": settings.allow_unknown_words,
    }
    if arm.condition_on is not None:
        given["condition_on"] = arm.condition_on
    return settled(load_train_settings(None, given), stored)


def check_places(settings: AblateSettings, prompts: pa.Table) -> None:
    """
    Raises:
        ConfigError: a form or wording that was declared is that of no prompt.
    """
    forms = list(dict.fromkeys(prompts.column("form").to_pylist()))
    wordings = [ALL, *dict.fromkeys(prompts.column("wording").to_pylist())]
    primary = settings.primary
    named = [("primary", primary.form, primary.wording)]
    named += [("no_worse", own.form, own.wording) for own in settings.no_worse]
    for own in settings.interactions:
        named += [("interactions", form, own.wording or primary.wording) for form in own.forms]
    for where, form, wording in named:
        if form not in forms:
            raise ConfigError(
                f"No prompt has the form {form!r} that {where} names; {nearest(form, forms)}"
            )
        if wording not in wordings:
            raise ConfigError(
                f"No prompt has the wording {wording!r} that {where} names; "
                f"{nearest(wording, wordings)}"
            )


def judges_added(stored: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Name -> options of the judges that `caplab judge` added to a stored study."""
    added = (stored or {}).get("judges_added", [])
    return {
        row["name"]: row["options"]
        for row in (stored or {}).get("judges", [])
        if row["name"] in added
    }


def tried_judges(
    settings: AblateSettings,
    prompts: pa.Table,
    resolution: int,
    device: str,
    added: Mapping[str, Mapping[str, Any]],
) -> list[JudgeSpec]:
    """The judges of a study, each loaded and tried.

    Args:
        added: further ones; where the settings name one of them, theirs counts.

    Raises:
        ConfigError: as `loaded_judges`, or the primary metric is given by none or is not defined on
            the primary form.
    """
    values: dict[str, NDArray[np.float64]] = {}
    rows = primary_prompts(settings, prompts)
    judges = settings.judges | {n: own for n, own in added.items() if n not in settings.judges}
    specs = loaded_judges(judges, rows, resolution, device, values)
    refuse_small_sets(specs, prompts, settings.noises, device)
    metric = settings.primary.metric
    if metric not in values:
        raise ConfigError(
            f"No judge of single pictures ({', '.join(settings.judges)}) gives the metric "
            f"{metric!r} that primary names; {nearest(metric, list(values))}"
        )
    if np.isnan(values[metric]).all():
        raise ConfigError(
            f"The metric {metric!r} is not defined on {settings.primary.form} prompts; name "
            f"another metric or form in `primary`."
        )
    return specs


def loaded_judges(
    judges: Mapping[str, Mapping[str, Any]],
    prompts: pa.Table,
    resolution: int,
    device: str,
    values: dict[str, NDArray[np.float64]] | None = None,
) -> list[JudgeSpec]:
    """The judges, each of which has judged a few pictures of the models' size.

    Args:
        values: receives what they said.

    Raises:
        ConfigError: one does not load, or two give one metric.
        StageError: one does not judge.
    """
    specs = [JudgeSpec.of(name, options, device) for name, options in judges.items()]
    refuse_shared_metrics(specs)
    rows = prompts.slice(0, _TRIED)
    for spec in specs:
        judge = spec.made(device)
        pictures = sample_pictures(judge, rows, resolution)
        if isinstance(judge, SetJudge):
            said_by(spec.name, judge.attempt, pictures, rows)
            continue
        found = checked_scores(spec.name, judge, pictures, rows)
        if values is not None:
            values |= found
    return specs


def refuse_small_sets(
    specs: Sequence[JudgeSpec], prompts: pa.Table, noises: int, device: str
) -> None:
    """
    Raises:
        ConfigError: a form and wording has too few pictures for a judge of sets.
    """
    counts = prompts.group_by(["form", "wording"]).aggregate([([], "count_all")])
    for spec in specs:
        judge = spec.made(device)
        if isinstance(judge, SetJudge):
            for count in counts.column("count_all").to_pylist():
                judge.used(count * noises)


def primary_prompts(settings: AblateSettings, prompts: pa.Table) -> pa.Table:
    """The prompts of the primary form and wording."""
    here = pc.equal(prompts.column("form"), settings.primary.form)
    if settings.primary.wording != ALL:
        here = pc.and_(here, pc.equal(prompts.column("wording"), settings.primary.wording))
    return prompts.filter(here)


def sample_pictures(judge: Judge, rows: pa.Table, resolution: int) -> Pictures:
    """What the prompts meant, or black pictures, which show as well what is defined on them."""
    pictures = judge.targets(rows, resolution)
    if pictures is None:
        return np.zeros((rows.num_rows, resolution, resolution, 3), np.uint8)
    return pictures


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
