"""Everything that a training run can be told, and the presets that choose it for a purpose."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from curate.base.errors import ConfigError
from curate.base.files import read_json
from curate.base.settings import (
    OPERATIONAL,
    Device,
    Precision,
    Settings,
    device_of,
    load_settings,
    nearest,
    precision_of,
)


class ModelConfig(Settings):
    """Shape of a text-to-image model: PixArt transformer, T5 text encoder, word tokenizer.

    Compute a picture grows with `depth * width**2` times the number of patches,
    (resolution / patch_size)**2, and of text tokens; memory of the weights with
    `depth * width**2`.
    """

    resolution: int = Field(32, gt=0, description="Side of the square picture, pixels.")
    patch_size: int = Field(8, gt=0, description="Side of one patch, pixels; divides resolution.")
    width: int = Field(192, gt=0, description="Channels of the transformer.")
    depth: int = Field(4, gt=0, description="Transformer blocks.")
    heads: int = Field(3, gt=0, description="Attention heads; divides width.")
    initial_gate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="adaLN gates at the start: 0 = the identity, as in DiT; 1 = plain residuals.",
    )
    text_width: int = Field(128, gt=0, description="Channels of the text encoder.")
    text_depth: int = Field(1, gt=0, description="Layers of the text encoder.")
    text_heads: int = Field(4, gt=0, description="Attention heads; divides text_width.")
    text_feed_forward: int = Field(256, gt=0, description="Hidden channels of its feed-forward.")
    text_tokens: int = Field(
        24, gt=1, description="Token window; every caption is padded or cut to it, </s> included."
    )
    vocabulary: tuple[str, ...] | None = Field(
        None, description="Words that are tokens; null = the most frequent words of all captions."
    )
    vocabulary_size: int = Field(
        512, gt=3, description="Most tokens that a vocabulary collected from captions may have."
    )
    stop_words: tuple[str, ...] = Field((), description="Words that the tokenizer drops.")
    phrases: tuple[str, ...] = Field((), description="Phrases that become one token each.")

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        for whole, part in (
            ("resolution", "patch_size"),
            ("width", "heads"),
            ("text_width", "text_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{part} must divide {whole}")
        if self.width % 4:
            raise ValueError("width must be a multiple of 4 for the 2-D position embedding")
        return self


class TrainSettings(Settings):
    """One training run. Values that are not given come from the preset that `model` names."""

    model: str = Field("world-small", description="Preset name, or path of a YAML file like one.")
    captions: dict[str, float] = Field(
        {"descriptive": 0.95, "alt": 0.05},
        description="Share of each caption kind; shares sum to 1.",
    )
    missing_captions: Literal["refuse", "drop"] = Field(
        "refuse", description="What to do with a picture that lacks a caption of the blend."
    )
    allow_unknown_words: bool = Field(
        False,
        description="Train although over 5% of the words of a caption kind or of the prompts are "
        "outside the model's vocabulary; without it the run is refused before a step.",
        json_schema_extra=OPERATIONAL,
    )
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of captions emptied, for classifier-free guidance."
    )
    resolution: int | None = Field(
        None, gt=0, description="Side of the picture, pixels; null = as the model's config says."
    )
    seed: int = Field(0, ge=0, description="Of weights, data order, noise, blend and dropout.")
    steps: int = Field(1000, gt=0, description="Optimiser steps.")
    batch_size: int = Field(64, gt=0, description="Pictures a step.")

    prediction: Literal["x0", "velocity"] = Field("x0", description="What the network outputs.")
    loss_weighting: Literal["x0", "velocity"] = Field(
        "x0", description="Where the squared error is taken; velocity = x0 error / t**2."
    )
    timestep_mean: float = Field(1.5, description="Mean of logit t; t = 1 is pure noise.")
    timestep_std: float = Field(1.3, gt=0, description="Standard deviation of logit t.")
    timestep_uniform_share: float = Field(
        0.0, ge=0, le=1, description="Share of timesteps drawn uniformly from (0, 1) instead."
    )

    muon_learning_rate: float = Field(
        0.02, ge=0, description="For hidden matrices; 0 = these get AdamW as well."
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="Nesterov momentum of Muon.")
    adamw_learning_rate: float = Field(2e-3, gt=0, description="For everything else.")
    adamw_betas: tuple[float, float] = Field((0.9, 0.99), description="Of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled; on matrices only.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest global gradient norm.")
    warmup_share: float = Field(0.03, ge=0, le=1, description="Share of steps of linear warm-up.")
    cooldown_share: float = Field(
        0.4, ge=0, le=1, description="Share of steps, at the end, of linear cool-down to 0."
    )
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Of the averaged weights, a step.")
    max_skipped_steps: int = Field(
        20, ge=0, description="Non-finite steps that are skipped before the run is given up."
    )

    guidance_scale: float = Field(2.5, ge=1, description="Classifier-free guidance; 1 = none.")
    sampling_steps: int = Field(12, gt=0, description="Euler steps a picture.")
    sampling_shift: float = Field(4.0, gt=0, description="Shift of sampling timesteps to noise.")

    validation_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="Held out: pictures whose key's hash lies below it, so that a selection that "
        "grows never moves one into training.",
    )
    validation_samples: int = Field(
        64, ge=0, description="Held-out pictures that are looked at, at most; 0 = none held out."
    )
    validate_every: int = Field(0, ge=0, description="Steps; 0 = at the end only.")
    grid_prompts: tuple[str, ...] = Field(
        (), description="Prompts of the sample grids; none = captions of held-out pictures."
    )
    grid_size: int = Field(16, ge=0, description="Pictures in a sample grid; 0 = no grids.")
    grid_every: int = Field(0, ge=0, description="Steps; 0 = at the end only.")

    checkpoint_every: int = Field(
        0,
        ge=0,
        description="Steps; 0 = by time and at the end only.",
        json_schema_extra=OPERATIONAL,
    )
    checkpoint_minutes: float = Field(
        5.0,
        ge=0,
        description="Minutes of wall clock after which a checkpoint is due; 0 = by steps only.",
        json_schema_extra=OPERATIONAL,
    )
    log_every: int = Field(
        10, gt=0, description="Steps between rows of the metrics.", json_schema_extra=OPERATIONAL
    )
    precision: Precision = Field(
        "auto",
        description="fp32, or bf16 with fp32 master weights; auto = bf16 where it is faster.",
    )
    device: Device = Field("auto", description="cpu, cuda, cuda:1; auto = a GPU if any.")
    threads: int = Field(
        0, ge=0, description="CPU threads; 0 = PyTorch's choice.", json_schema_extra=OPERATIONAL
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_first(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("model", cls.model_fields["model"].default)
        return {**load_preset(str(name))["train"], **given}

    @field_validator("precision")
    @classmethod
    def _without_loss_scaling(cls, precision: Precision) -> Precision:
        if precision == "fp16":
            raise ValueError("gradients in fp16 need loss scaling, which is not there; use bf16")
        return precision

    @field_validator("captions")
    @classmethod
    def _shares(cls, captions: dict[str, float]) -> dict[str, float]:
        if not captions or any(share < 0 for share in captions.values()):
            raise ValueError("captions need at least one kind, and no share below 0")
        if abs(sum(captions.values()) - 1) > 1e-6:
            raise ValueError(f"the shares sum to {sum(captions.values()):g} and must sum to 1")
        return captions

    @model_validator(mode="after")
    def _schedule_fits(self) -> TrainSettings:
        if self.warmup_share + self.cooldown_share > 1:
            raise ValueError("warmup_share and cooldown_share together exceed 1")
        return self


def settled(settings: TrainSettings, stored: Mapping[str, Any] | None = None) -> TrainSettings:
    """Device and precision without auto: those of `stored` settings, else what is best here.

    They are part of a run's identity: a run that is continued on another machine keeps them.

    Raises:
        ConfigError: this machine has no such device, or it cannot compute in that precision.
    """
    kept = {
        name: (stored or {}).get(name, "auto")
        for name in ("device", "precision")
        if getattr(settings, name) == "auto"
    }
    settings = settings.model_copy(update=kept)
    try:
        device = device_of(settings.device)
        precision = precision_of(settings.precision, device, matrix_tiles=True)
    except ConfigError as error:
        if stored is None:
            raise
        raise ConfigError(f"The stored run cannot be continued here: {error}") from error
    return settings.model_copy(update={"device": device, "precision": precision})


def stored_settings(record: Path) -> dict[str, Any] | None:
    """The settings in a run's record, as `settled` takes them; None where there is no such."""
    stored = read_json(record) if record.exists() else None
    identity = stored.get("identity") if isinstance(stored, dict) else None
    return identity.get("settings") if isinstance(identity, dict) else None


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("train") / "configs"
    return sorted(path.name[:-5] for path in folder.iterdir() if path.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, dict[str, Any]]:
    """The `model:` and `train:` parts of a preset, by name or by path of a YAML file.

    Raises:
        ConfigError: no such preset or file, or it has other parts.
    """
    if name in preset_names():
        text = (resources.files("train") / "configs" / f"{name}.yaml").read_text("utf-8")
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text("utf-8")
        except OSError as error:
            raise ConfigError(f"The model config {name} cannot be read ({error}).") from error
    else:
        raise ConfigError(f"There is no model preset {name!r}; {nearest(name, preset_names())}")
    try:
        loaded = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"The model config {name} is not valid YAML ({error}).") from error
    if not isinstance(loaded, dict) or not set(loaded) <= {"model", "train"}:
        raise ConfigError(f"The model config {name} must hold `model:` and `train:`, and no more.")
    return {part: loaded.get(part) or {} for part in ("model", "train")}


def load_train_settings(
    yaml_path: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> TrainSettings:
    """Settings from, in rising order: the model's preset, a YAML file, overrides."""
    return load_settings(TrainSettings, yaml_path, overrides)


def model_config(settings: TrainSettings) -> ModelConfig:
    """The shape of the model that `settings.model` names, at `settings.resolution` if given."""
    values = dict(load_preset(settings.model)["model"])
    if settings.resolution is not None:
        values["resolution"] = settings.resolution
    return load_settings(ModelConfig, None, values)
