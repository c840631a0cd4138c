"""What an ablation rests on, read and checked as a whole before a step is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import ConfigError
from curate.base.files import fingerprint, read_json
from curate.base.settings import nearest
from curate.store.captions import captioned_keys
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes
from pipelines.ablation.judges import Judge, make_judge
from pipelines.ablation.settings import AblateSettings
from train.data.index import build_index
from train.model_settings import ModelConfig
from train.settings import TrainSettings, load_train_settings, model_config, settled
from train.text.build import build_tokenizer
from train.text.vocabulary import UnknownWords, refuse_unknown_words, unknown_words


@dataclass(frozen=True)
class Study:
    """A declared experiment whose every part was found.

    Attributes:
        keys: the pictures that all arms see.
        train: arm -> its training settings, which differ in `captions` alone.
        prompts: in the schema PROMPTS.
        identity: what another run must share to continue this one.
        unknown: words of captions and prompts that the models will not be able to read.
    """

    dataset: Dataset
    keys: tuple[str, ...]
    train: dict[str, TrainSettings]
    judge: Judge
    prompts: pa.Table
    identity: dict[str, Any]
    unknown: list[UnknownWords]


def prepare(dataset_dir: Path | str, settings: AblateSettings, record: Path | None = None) -> Study:
    """Read, load and check everything: captions, prompts, judge, metric, form and words.

    Args:
        record: ablation.json of a study that may be there; its device and precision are kept.

    Raises:
        ConfigError: a part is missing or does not fit the others.
        DatasetError: the directory is no dataset.
    """
    dataset = Dataset.open(dataset_dir)
    keys = common_keys(dataset, settings)
    train = train_settings(settings, _stored_train(record))
    first = next(iter(train.values()))
    config = model_config(first)
    # One for all arms: they differ in what is drawn of it. It refuses what cannot be held out.
    both = build_index(
        dataset, first, config, settings.selection, settings.caption_sources, keys=keys
    )
    judge = make_judge(settings, first.device)
    prompts = judge.prompts()
    _check_judge(judge, settings, prompts, config)
    tokenizer = build_tokenizer(config, chain.from_iterable(index.texts() for index in both))
    texts: dict[str, Iterable[str]] = {
        f"{kind} captions": chain(*(index.texts([kind]) for index in both))
        for kind in settings.kinds
    }
    if first.grid_prompts:
        texts["grid_prompts"] = first.grid_prompts
    unknown = unknown_words(tokenizer, {**texts, **_prompt_texts(settings, prompts)})
    refuse_unknown_words(unknown, settings.allow_unknown_words)
    identity = {
        **settings.identity(),
        "dataset": dataset.record()["identity_fingerprint"],
        "keys": fingerprint(list(keys)),
        "data": both[0].fingerprint,
        # What the file holds, not where it lies.
        "prompts": fingerprint(prompts.to_pylist()),
        "judge_weights": judge.weights,
        "train": first.identity(),
        "model_config": config.resolved(),
    }
    return Study(dataset, keys, train, judge, prompts, identity, unknown)


def common_keys(dataset: Dataset, settings: AblateSettings) -> tuple[str, ...]:
    """Keys of the selection with an accepted caption of every kind that an arm uses.

    Raises:
        ConfigError: no picture has them all; the kinds that are missing are named.
    """
    refuse_holes(dataset, [settings.selection])
    selected = dataset.selection_keys(settings.selection)
    common = set(selected)
    for kind in settings.kinds:
        have = captioned_keys(dataset, kind, settings.caption_sources.get(kind))
        if not have.intersection(selected):
            raise ConfigError(
                f"No picture of selection {settings.selection!r} has a caption of kind {kind!r}; "
                f"write them with `caplab recaption {dataset.directory} --selection "
                f"{settings.selection} --kinds {kind}`."
            )
        common &= have
    if not common:
        raise ConfigError(
            f"No picture has captions of all kinds {', '.join(settings.kinds)}; recaption the "
            f"whole selection."
        )
    return tuple(sorted(common))


def train_settings(
    settings: AblateSettings, stored: Mapping[str, Any] | None = None
) -> dict[str, TrainSettings]:
    """The training settings of each arm; they differ in `captions` alone.

    Device and precision are settled here, once for all arms; `stored` ones are kept.
    """
    fixed = {
        "threads": settings.cpus_per_run,
        "allow_unknown_words": settings.allow_unknown_words,
    }
    return {
        arm: settled(
            load_train_settings(None, {**settings.train, "captions": blend, **fixed}), stored
        )
        for arm, blend in settings.arms.items()
    }


def _stored_train(record: Path | None) -> Mapping[str, Any] | None:
    if record is None or not record.exists():
        return None
    stored: Mapping[str, Any] | None = read_json(record).get("identity", {}).get("train")
    return stored


def _check_judge(
    judge: Judge, settings: AblateSettings, prompts: pa.Table, config: ModelConfig
) -> None:
    """Raise ConfigError unless the primary metric can be had on the primary form.

    The judge judges, once, pictures of the models' size on that form's prompts.
    """
    metric, form = settings.primary_metric, settings.primary_prompt_form
    if metric not in judge.metrics:
        raise ConfigError(
            f"The {settings.judge} judge has no metric {metric!r} for primary_metric; "
            f"{nearest(metric, list(judge.metrics))}"
        )
    forms = list(dict.fromkeys(prompts.column("prompt_form").to_pylist()))
    if form not in forms:
        raise ConfigError(
            f"No prompt has the form {form!r} that primary_prompt_form names; "
            f"{nearest(form, forms)}"
        )
    rows = prompts.filter(pc.equal(prompts.column("prompt_form"), form))
    texts, scenes = rows.column("prompt").to_pylist(), rows.column("scene").to_pylist()
    pictures = judge.targets(scenes, config.resolution)
    if pictures is None:  # black ones show as well whether the metric applies to the prompts
        pictures = np.zeros((len(texts), config.resolution, config.resolution, 3), np.uint8)
    if np.isnan(judge.score(pictures, texts, scenes, form)[metric]).all():
        raise ConfigError(
            f"The metric {metric!r} is not defined on {form} prompts; name another primary_metric "
            f"or primary_prompt_form."
        )


def _prompt_texts(settings: AblateSettings, prompts: pa.Table) -> dict[str, list[str]]:
    """Texts of each form, named for a reader."""
    place = "" if settings.prompts is None else f" of {settings.prompts}"
    texts: dict[str, list[str]] = {}
    for row in prompts.select(["prompt_form", "prompt"]).to_pylist():
        texts.setdefault(f"{row['prompt_form']} prompts{place}", []).append(row["prompt"])
    return texts
