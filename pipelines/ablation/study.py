"""What a study rests on, read and checked as a whole before a step is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import read_record
from curate.base.settings import load_settings, nearest
from curate.store.captions import captioned_keys
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes
from pipelines.ablation.judged import JudgeSpec, checked_scores, refuse_shared_metrics
from pipelines.ablation.pictures import Asked
from pipelines.ablation.runs import RECORD, Run, recipe_mark, run_folder, sampling_of
from pipelines.ablation.settings import AblateSettings, Arm
from pipelines.judges.prompts import read_prompts
from pipelines.judges.protocol import Judge, Pictures
from train.data.index import TrainingIndex, build_index
from train.run import data_identity
from train.sample import asked_buckets
from train.settings import TrainSettings, load_train_settings, model_config, settled
from train.text.build import build_tokenizer
from train.text.vocabulary import UnknownWords, refuse_unknown_words, unknown_words

ALL = "all"
"""The wording that stands for all of them."""
_TRIED = 64
"""Pictures that each judge looks at before a step is trained, at most."""

Indexes = tuple[TrainingIndex, TrainingIndex]


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
    """

    dataset: Dataset
    cells: list[Cell]
    asked: Asked
    judges: list[JudgeSpec]
    device: str
    precision: str
    unknown: list[UnknownWords] = field(default_factory=list)

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
    judges = tried_judges(settings, prompts, model_config(first).resolution, first.device)
    sources = derive_sets(dataset, settings)
    books = _Books(dataset, settings, sources)
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
    asked = Asked(prompts, settings.noises, settings.generation_seed)
    return Study(dataset, cells, asked, judges, first.device, first.precision, unknown)


def arms_of(settings: AblateSettings) -> Iterable[tuple[str, Arm]]:
    """Name and arm of each, sweeps' behind the others."""
    return settings.all_arms.items()


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


def tried_judges(
    settings: AblateSettings, prompts: pa.Table, resolution: int, device: str
) -> list[JudgeSpec]:
    """The judges of a study, each loaded and tried.

    Raises:
        ConfigError: as `loaded_judges`, or the primary metric is given by none or is not defined on
            the primary form.
    """
    values: dict[str, NDArray[np.float64]] = {}
    rows = primary_prompts(settings, prompts)
    specs = loaded_judges(settings.judges, rows, resolution, device, values)
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
        if not spec.of_sets:
            judge = spec.made(device)
            pictures = sample_pictures(judge, rows, resolution)
            found = checked_scores(spec.name, judge, pictures, rows)
            if values is not None:
                values |= found
    return specs


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


def derive_sets(dataset: Dataset, settings: AblateSettings) -> dict[str, str]:
    """Write the derived caption sets; name -> its source.

    Raises:
        ConfigError: the captions that a set is made from are not there.
    """
    if not settings.caption_sets:
        return {}
    from recaption.transforms.derive import derive

    found: dict[str, str] = {}
    for name, derivation in settings.caption_sets.items():
        found[name] = derive(dataset, name, derivation).source
    return found


class _Books:
    """Keys and indexes of the arms, each made once."""

    def __init__(
        self, dataset: Dataset, settings: AblateSettings, derived: Mapping[str, str]
    ) -> None:
        self.dataset, self.settings = dataset, settings
        self._shared = {**settings.caption_sources, **derived}
        self._keys: dict[str, tuple[str, ...]] = {}
        self._indexes: dict[str, Indexes] = {}

    def sources_of(self, arm: Arm) -> dict[str, str]:
        """Kind -> who wrote it."""
        return {**self._shared, **arm.caption_sources}

    def keys(self, selection: str) -> tuple[str, ...]:
        """Pictures of a selection with an accepted caption of every kind that an arm of it uses.

        Raises:
            ConfigError: no picture has them all; the kinds that are missing are named.
        """
        if selection not in self._keys:
            self._keys[selection] = self._common(selection)
        return self._keys[selection]

    def _common(self, selection: str) -> tuple[str, ...]:
        refuse_holes(self.dataset, [selection])
        selected = self.dataset.selection_keys(selection)
        common = set(selected)
        own = [a for _, a in arms_of(self.settings) if self._selection(a) == selection]
        for kind, source in sorted(
            {(kind, self.sources_of(arm).get(kind)) for arm in own for kind in arm.captions},
            key=str,
        ):
            have = captioned_keys(self.dataset, kind, source)
            if not have.intersection(selected):
                raise ConfigError(
                    f"No picture of selection {selection!r} has a caption of kind {kind!r}; write "
                    f"them with `caplab recaption {self.dataset.directory} --selection "
                    f"{selection} --kinds {kind}`."
                )
            common &= have
        if not common:
            raise ConfigError(
                f"No picture of selection {selection!r} has captions of all kinds "
                f"{', '.join(self.settings.kinds_of(selection))}; recaption the whole selection."
            )
        return tuple(sorted(common))

    def indexes(self, arm: Arm, train: TrainSettings) -> Indexes:
        """What an arm learns from and is looked at with; equal for arms that differ in captions."""
        name = self._name(arm, train)
        if name not in self._indexes:
            selection = self._selection(arm)
            self._indexes[name] = build_index(
                self.dataset,
                train,
                model_config(train),
                selection,
                self.sources_of(arm),
                keys=self.keys(selection),
            )
        return self._indexes[name]

    def data_of(self, arm: Arm, train: TrainSettings) -> dict[str, str]:
        """What an arm learns from, by content."""
        both = self.indexes(arm, train)
        return data_identity(train, model_config(train), *both)

    def unknown_words(
        self, settings: AblateSettings, train: Mapping[str, TrainSettings], prompts: pa.Table
    ) -> list[UnknownWords]:
        """Words of captions and prompts that are outside of the vocabularies."""
        config = model_config(next(iter(train.values())))
        if all(own.kind != "words" for own in config.text):
            return []
        found: list[UnknownWords] = []
        told = prompt_texts(settings, prompts)
        kinds: dict[str, list[str]] = {}
        for name, arm in arms_of(settings):
            own = kinds.setdefault(self._name(arm, train[name]), [])
            own += [kind for kind in sorted(arm.captions) if kind not in own]
        for index, own in kinds.items():
            both = self._indexes[index]
            tokenizer = build_tokenizer(config, chain.from_iterable(i.texts() for i in both))
            texts: dict[str, Iterable[str]] = {
                f"{kind} captions": chain(*(i.texts([kind]) for i in both)) for kind in sorted(own)
            }
            grid = next(iter(train.values())).grid_prompts
            texts |= {"grid_prompts": grid} if grid else {}
            found += unknown_words(tokenizer, {**texts, **told})
        return found

    def _selection(self, arm: Arm) -> str:
        return arm.selection or self.settings.selection

    def _name(self, arm: Arm, train: TrainSettings) -> str:
        return repr(
            (self._selection(arm), sorted(self.sources_of(arm).items()), train.condition_on)
        )


def prompt_texts(settings: AblateSettings, prompts: pa.Table) -> dict[str, list[str]]:
    """Texts of each form, named for a reader."""
    place = f" of {settings.prompts}" if isinstance(settings.prompts, str) else ""
    texts: dict[str, list[str]] = {}
    for row in prompts.select(["form", "prompt"]).to_pylist():
        texts.setdefault(f"{row['form']} prompts{place}", []).append(row["prompt"])
    return texts
