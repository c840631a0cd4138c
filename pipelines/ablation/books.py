"""Which pictures and captions the arms of a study learn from, and what a model cannot read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.store.captions import captioned_keys
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes
from pipelines.ablation.settings import AblateSettings, Arm
from train.data.index import TrainingIndex, build_index
from train.model_settings import ModelConfig
from train.run import data_identity
from train.settings import TrainSettings, model_config
from train.text.build import build_tokenizer
from train.text.vocabulary import CutTexts, UnknownWords, cut_texts, unknown_words

COUNTED = 100_000
"""Captions of a kind among which those that do not fit the window are counted."""

Indexes = tuple[TrainingIndex, TrainingIndex]


def arms_of(settings: AblateSettings) -> Iterable[tuple[str, Arm]]:
    """Name and arm of each, sweeps' behind the others."""
    return settings.all_arms.items()


class Books:
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
        """Pictures of a selection with an accepted caption of every kind that an arm of it uses, or
        of any of them where the arm falls back.

        Raises:
            ConfigError: no picture has them all; the kinds that are missing are named.
        """
        if selection not in self._keys:
            self._keys[selection] = self._common(selection)
        return self._keys[selection]

    def _common(self, selection: str) -> tuple[str, ...]:
        refuse_holes(self.dataset, [selection])
        common = set(self.dataset.selection_keys(selection))
        own = [a for _, a in arms_of(self.settings) if self._selection(a) == selection]
        have: dict[tuple[str, str | None], set[str]] = {}
        for kind, source in sorted(
            {(kind, self.sources_of(arm).get(kind)) for arm in own for kind in arm.captions},
            key=str,
        ):
            have[kind, source] = captioned_keys(self.dataset, kind, source) & common
            if not have[kind, source]:
                raise ConfigError(
                    f"No picture of selection {selection!r} has a caption of kind {kind!r}; write "
                    f"them with `caplab recaption {self.dataset.directory} --selection "
                    f"{selection} --kinds {kind}`."
                )
        for arm in own:
            sets = [have[kind, self.sources_of(arm).get(kind)] for kind in arm.captions]
            if arm.missing_captions == "fallback":
                common &= set[str]().union(*sets)
            else:
                common.intersection_update(*sets)
        if not common:
            raise ConfigError(
                f"No picture of selection {selection!r} has captions of all kinds "
                f"{', '.join(self.settings.kinds_of(selection))}; recaption the whole selection, "
                f"or let arms fall back (missing_captions: fallback)."
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

    def cut_texts(
        self, settings: AblateSettings, config: ModelConfig, prompts: pa.Table
    ) -> list[CutTexts]:
        """How many captions of each kind, and prompts of each form, the models read no further
        than their window."""
        texts: dict[str, list[str]] = {}
        for training, _ in self._indexes.values():
            for kind in training.kinds:
                if kind not in texts:
                    texts[kind] = list(islice(training.texts([kind]), COUNTED))
        used = {kind for _, arm in arms_of(settings) for kind in arm.captions}
        captions = {f"{kind} captions": own for kind, own in texts.items() if kind in used}
        words = chain.from_iterable(texts.values())
        return cut_texts(
            build_tokenizer(config, words), {**captions, **prompt_texts(settings, prompts)}
        )

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
