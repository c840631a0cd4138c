"""What a study compares: arms that differ in their captions or in their data, and nothing else."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from curate.base.settings import OPERATIONAL, CaptionSources, Settings, comma_list
from pipelines.ablation.declared import (
    Declaration,
    Interaction,
    NoWorse,
    Primary,
    Sweep,
    refuse_empty_tests,
)
from pipelines.runners.settings import RunnerSettings
from recaption.transforms.derivation import Derivation

# What `train` may not hold: the study sets these for every arm.
SET_BY_THE_STUDY = ("captions", "seed", "missing_captions", "threads", "allow_unknown_words")
_DEFAULT_ARMS: dict[str, dict[str, float]] = {
    "alt": {"alt": 1.0},
    "short": {"short": 0.95, "alt": 0.05},
    "descriptive": {"descriptive": 0.95, "alt": 0.05},
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")  # names become folders
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of training; it is drawn with and stored in 64 bits."""


def _named(judges: Any) -> Any:
    names = comma_list(judges) if isinstance(judges, str) else judges
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        return {name: {} for name in names}
    if isinstance(names, dict):
        return {name: {} if options is None else options for name, options in names.items()}
    return names


def _of_the_world(prompts: Any) -> Any:
    if isinstance(prompts, str) and prompts.startswith("{"):  # an option's YAML
        try:
            return yaml.safe_load(prompts)
        except yaml.YAMLError as error:
            raise ValueError(f"it is not valid YAML ({error})") from error
    return prompts


Judges = Annotated[dict[str, dict[str, Any]], BeforeValidator(_named)]
"""Name -> options; a name or a list of names is enough."""
Prompts = Annotated[str | dict[str, Any], BeforeValidator(_of_the_world)]
"""A file, or options of the world's prompts."""


class Arm(Settings):
    """One arm; `{kind: share}` alone is short for its captions."""

    captions: dict[str, float] = Field(..., description="Share of each caption kind; they sum to 1")
    selection: str | None = Field(
        None, description="Pictures and their weights; none = the study's selection"
    )
    caption_sources: CaptionSources = Field(
        {}, description="Kind -> who wrote it, where that differs from the study's"
    )
    missing_captions: Literal["drop", "fallback"] = Field(
        "drop",
        description="A picture that lacks a kind of the arm is left out of all arms (drop), or "
        "takes the arm's kind of the largest share where that kind is drawn (fallback)",
    )
    seeds: tuple[Seed, ...] | None = Field(
        None, min_length=1, description="Training seeds of its own; none = the study's"
    )
    condition_on: tuple[str, ...] | None = Field(
        None, description="Score columns that the model is told; none = as `train` says"
    )
    ask: dict[str, float] = Field(
        {}, description="Score column -> quantile (0.0 to 1.0) that is asked for when drawing"
    )

    @model_validator(mode="before")
    @classmethod
    def _shares_alone(cls, given: Any) -> Any:
        shares = isinstance(given, dict) and all(
            isinstance(value, (int, float)) for value in given.values()
        )
        return {"captions": given} if shares else given

    @field_validator("captions")
    @classmethod
    def _shares_sum_to_one(cls, captions: dict[str, float]) -> dict[str, float]:
        if not captions or abs(sum(captions.values()) - 1) > 1e-6 or min(captions.values()) < 0:
            raise ValueError("the shares must be positive and sum to 1")
        return {kind: share for kind, share in captions.items() if share > 0}

    @field_validator("ask")
    @classmethod
    def _quantiles(cls, ask: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= quantile <= 1 for quantile in ask.values()):
            raise ValueError("what is asked for are quantiles from 0.0 to 1.0")
        return ask


class AblateSettings(RunnerSettings):
    """The declared experiment. Read the YAML file and you know the study."""

    GROUPS: ClassVar[dict[str, str]] = {"Study": "arms", "Running": "workers"}

    RENAMED: ClassVar[dict[str, str]] = {
        "judge": "judges",
        "clip_model": "judges: {clip: {model: ...}}",
        "clip_pretrained": "judges: {clip: {pretrained: ...}}",
        "world": "prompts: {world: ...}",
        "scenes": "prompts: {scenes: ...}",
        "exclude_scenes": "prompts: {exclude_scenes: ...}",
        "prompt_seed": "prompts: {seed: ...}",
        "primary_metric": "primary: {metric: ...}",
        "primary_prompt_form": "primary: {form: ...}",
    }

    arms: dict[str, Arm] = Field(
        default_factory=lambda: {n: Arm(captions=c) for n, c in _DEFAULT_ARMS.items()},
        description="Name -> {kind: share}, or {captions, missing_captions, selection, "
        "caption_sources, seeds, condition_on, ask}",
    )
    caption_sets: dict[str, Derivation] = Field(
        {}, description="Name -> {of, rule, ...}: caption sets derived by rule; kinds for arms"
    )
    sweeps: dict[str, Sweep] = Field(
        {}, description="Name -> {kind, rest, shares}: an arm KIND-SHARE for each share in percent"
    )
    contrasts: tuple[tuple[str, str], ...] = Field(
        (("descriptive", "alt"), ("descriptive", "short"), ("short", "alt")),
        description="Pairs of arms that are declared before the run; all else is exploratory. "
        "Where arms are given without: every arm against the first one",
    )
    no_worse: tuple[NoWorse, ...] = Field(
        (), description="{arm, than, form, margin}: claims that an arm loses less than the margin"
    )
    interactions: tuple[Interaction, ...] = Field(
        (), description="{arms, forms}: whether two arms differ more on one form than on another"
    )
    trends: dict[str, dict[str, float]] = Field(
        {}, description="Name -> {arm: dose}: trends over arms that are no sweep"
    )
    primary: Primary = Field(Primary(), description="{metric, form, wording} that decide")
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2), min_length=1, description="Training seeds; every arm trains once with each"
    )
    noises: int = Field(2, gt=0, description="Pictures of a prompt, each from a noise of its own")
    generation_seed: int = Field(0, ge=0, description="Of the noise; shared by all arms and seeds")
    selection: str = Field("default", description="Selection of the dataset to train on")
    caption_sources: CaptionSources = Field(
        {},
        description="Kind -> who wrote it, where several captioners wrote that kind; a+b takes "
        "b's for pictures that have none by a",
    )
    train: dict[str, Any] = Field(
        {"model": "world-small"}, description="Training settings that all arms share"
    )
    judges: Judges = Field(
        {"world": {}},
        description="Name -> options, a name, or a list of names; a name is world, clip, ... or a "
        "judge of your own as module:Class (examples/judge_of_your_own.py)",
    )
    prompts: Prompts = Field(
        {},
        description="File of prompts (columns prompt, form, wording, id, intent, category, "
        "questions), or {scenes, forms, wordings, ...} of the synthetic world",
    )
    runs: str | None = Field(
        None,
        description="Folder of training runs that studies share; none = OUT/runs",
        json_schema_extra=OPERATIONAL,
    )
    allow_unknown_words: bool = Field(
        False,
        description="Train although over 5% of the words of a caption kind or a form of the "
        "prompts are outside the models' vocabulary; without it the study is refused before a step",
        json_schema_extra=OPERATIONAL,
    )
    workers: int = Field(2, gt=0, description="Runs side by side", json_schema_extra=OPERATIONAL)
    cpus_per_run: int = Field(
        1, gt=0, description="CPU threads of one run", json_schema_extra=OPERATIONAL
    )
    gpus_per_run: float | None = Field(
        None,
        ge=0,
        description="GPUs of one run, where Ray shares them out; none = one if there is any",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="before")
    @classmethod
    def _contrasts_of_given_arms(cls, given: Any) -> Any:
        own = isinstance(given, dict) and ("arms" in given or "sweeps" in given)
        if not own or "contrasts" in given or not isinstance(given.get("arms"), dict):
            return {**given, "contrasts": ()} if own and "contrasts" not in given else given
        first, *others = given["arms"] or [""]
        return {**given, "contrasts": tuple((other, first) for other in others)}

    @model_validator(mode="after")
    def _consistent(self) -> AblateSettings:
        arms = self.all_arms
        if not arms:
            raise ValueError("a study needs at least one arm")
        if not self.judges:
            raise ValueError("a study needs at least one judge")
        for name in (*arms, *self.caption_sets):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"the name {name!r} may hold letters, digits, _ . + and - alone, 100 at most"
                )
        for where, named in self._named_arms():
            for arm in named:
                if arm not in arms:
                    raise ValueError(f"{where} names an arm {arm!r} that is not there")
        refuse_empty_tests(self.contrasts, self.trends)
        if both := sorted(self.sweeps.keys() & self.trends.keys()):
            raise ValueError(f"a sweep and a trend are both called {both[0]!r}")
        for seeds in (self.seeds, *(arm.seeds or () for arm in arms.values())):
            if len(set(seeds)) != len(seeds):
                raise ValueError("every seed may stand only once")
        for name in SET_BY_THE_STUDY:
            if name in self.train:
                raise ValueError(f"train.{name} is set by the study itself; remove it")
        if all(self.train.get(f"{name}_seed") is not None for name in ("weights", "data", "noise")):
            raise ValueError(
                "train fixes weights_seed, data_seed and noise_seed, so that runs of other seeds "
                "would be one run; leave one of them free"
            )
        return self

    @property
    def all_arms(self) -> dict[str, Arm]:
        """Every arm, those of sweeps behind the others.

        Raises:
            ValueError: a sweep and an arm share a name and not their captions.
        """
        found = dict(self.arms)
        for sweep in self.sweeps.values():
            for name, blend in sweep.blends.items():
                arm = Arm(captions=blend)
                if found.setdefault(name, arm) != arm:
                    raise ValueError(f"a sweep makes an arm {name!r} unlike the one that is there")
        return found

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Training seeds of an arm."""
        return self.all_arms[arm].seeds or self.seeds

    def kinds_of(self, selection: str) -> tuple[str, ...]:
        """Every caption kind that an arm of a selection uses, sorted."""
        own = (a for a in self.all_arms.values() if (a.selection or self.selection) == selection)
        return tuple(sorted({kind for arm in own for kind in arm.captions}))

    def declaration(self) -> Declaration:
        """What the statistics will test."""
        swept = {name: sweep.doses for name, sweep in self.sweeps.items()}
        return Declaration(
            self.primary,
            self.contrasts,
            self.no_worse,
            self.interactions,
            {**swept, **self.trends},
        )

    def _named_arms(self) -> list[tuple[str, tuple[str, ...]]]:
        """Where arms are named, and which."""
        return [
            *((f"contrast {list(pair)}", pair) for pair in self.contrasts),
            *(("no_worse", (claim.arm, claim.than)) for claim in self.no_worse),
            *(("an interaction", claim.arms) for claim in self.interactions),
            *((f"trend {name!r}", tuple(doses)) for name, doses in self.trends.items()),
        ]
