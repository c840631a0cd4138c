"""Everything that a training run can be told, and the model that a preset describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

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
    precision_of,
)
from train.model_settings import ModelConfig
from train.presets import load_preset
from train.samplers import refuse_sampler, refuse_sampling_steps


class TrainSettings(Settings):
    """One training run. Values that are not given come from the preset that `model` names."""

    RENAMED: ClassVar[dict[str, str]] = {
        "caption_dropout": "prompt_dropout_prob",
        "prediction": "prediction_type",
        "warmup_share": "warmup_steps",
    }

    # ---- model ----
    model: str = Field("world-small", description="Preset name, or path of a YAML file like one.")
    init_from: str | None = Field(
        None,
        description="Weights to start from: a run, a pipeline's folder or a hub id; none = from "
        "nothing, initialised as the papers say.",
    )
    resolution: int | None = Field(
        None, gt=0, description="Side of the picture, pixels; none = as the model's config says."
    )
    lora_rank: int = Field(0, ge=0, description="Train low-rank adapters alone; 0 = all weights.")
    lora_alpha: float = Field(0.0, ge=0, description="Scale of the adapters; 0 = the rank.")
    lora_targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), description="Ends of names of adapted layers."
    )
    quantise_base: Literal["none", "int8", "nf4"] = Field(
        "none", description="Of the frozen weights under adapters; needs bitsandbytes or torchao."
    )
    new_tokens: dict[str, str] = Field(
        {},
        description="Textual inversion: new token -> word that its embedding starts from; only "
        "these embeddings are trained.",
    )

    # ---- captions and pictures ----
    captions: dict[str, float] = Field(
        {"descriptive": 0.95, "alt": 0.05},
        description="Share of each caption kind; shares sum to 1.",
    )
    missing_captions: Literal["refuse", "drop", "fallback"] = Field(
        "refuse",
        description="A picture that lacks a kind of the blend is refused, left out (drop), or "
        "takes its kind of the largest share where the one that is drawn is missing (fallback).",
    )
    allow_unknown_words: bool = Field(
        False,
        description="Train although over 5% of the words of a caption kind or of the prompts are "
        "outside the model's own vocabulary; without it the run is refused before a step.",
        json_schema_extra=OPERATIONAL,
    )
    prompt_dropout_prob: float = Field(
        0.1, ge=0, le=1, description="Share of captions emptied, for classifier-free guidance."
    )
    tag_shuffle: bool = Field(
        False, description="Captions that are lists of tags (at commas) in a new order each draw."
    )
    crop: Literal["center", "random"] = Field("center", description="Where pictures are cut.")
    flip: bool = Field(False, description="Half of the draws are mirrored.")
    aspect_buckets: bool = Field(
        False, description="Batches of one shape among several of about resolution**2 pixels."
    )
    bucket_step: int = Field(64, gt=0, description="Sides of buckets are multiples of it, pixels.")
    max_aspect: float = Field(2.0, ge=1, description="Longest side over shortest, of a bucket.")
    prior_selection: str | None = Field(
        None,
        description="DreamBooth's prior preservation: pictures of the class, half of the draws.",
    )
    prior_loss_weight: float = Field(1.0, ge=0, description="Loss weight of prior_selection.")
    condition_on: tuple[str, ...] = Field(
        (), description="Score columns that the model is told, in buckets."
    )
    condition_buckets: int = Field(10, gt=1, description="Buckets of a score: its quantiles.")
    condition_dropout_prob: float = Field(
        0.1, ge=0, le=1, description="Share of draws in which a score is not told."
    )
    shuffle_block: int = Field(
        0,
        ge=0,
        description="Samples among which the order is shuffled at a time, for shards far away; 0 "
        "= all.",
    )

    # ---- seed and length ----
    seed: int = Field(
        0, ge=0, lt=2**63, description="Of weights, data and noise, unless one has its own."
    )
    weights_seed: int | None = Field(None, ge=0, description="Of initial weights; none = seed.")
    data_seed: int | None = Field(
        None,
        ge=0,
        description="Of order, crops, blend, and dropout of captions and conditions; none = seed.",
    )
    noise_seed: int | None = Field(
        None, ge=0, description="Of training noise and timesteps; none = seed."
    )
    steps: int = Field(
        1000,
        gt=0,
        description="Optimiser steps; a run may be given more later.",
        json_schema_extra=OPERATIONAL,
    )
    batch_size: int = Field(64, gt=0, description="Pictures a step, of all processes together.")
    gradient_accumulation_steps: int = Field(
        1, gt=0, description="Parts that a step is computed in.", json_schema_extra=OPERATIONAL
    )

    # ---- objective ----
    objective: Literal["flow", "ddpm", "edm"] = Field(
        "flow", description="Path between picture and noise."
    )
    prediction_type: Literal["sample", "velocity", "epsilon", "v_prediction"] = Field(
        "sample",
        description="What the network outputs: the picture, flow's velocity, DDPM's noise or v. "
        "EDM has its own.",
    )
    loss_weighting: Literal["sample", "velocity", "none"] = Field(
        "sample",
        description="Flow: where the squared error is taken; velocity = sample error / t**2; none "
        "= that of prediction_type.",
    )
    noise_schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid"] = Field(
        "scaled_linear", description="DDPM: betas over 1,000 steps, as in diffusers."
    )
    zero_terminal_snr: bool = Field(
        False, description="DDPM: the last step is pure noise (Lin et al. 2023)."
    )
    snr_gamma: float | None = Field(
        None, gt=0, description="DDPM: min-SNR loss weights (Hang et al. 2023); 5 is usual."
    )
    timestep_sampling: Literal["logit_normal", "uniform"] = Field(
        "logit_normal", description="Of flow's times; DDPM's are uniform, EDM's log-normal."
    )
    timestep_mean: float = Field(
        1.5, description="Mean of logit t (1 is pure noise), or of log sigma for EDM."
    )
    timestep_std: float = Field(1.3, gt=0, description="Its standard deviation.")
    timestep_uniform_share: float = Field(
        0.0, ge=0, le=1, description="Share of timesteps drawn uniformly from (0, 1) instead."
    )
    discrete_flow_shift: float = Field(
        1.0, gt=0, description="Flow: training times are moved to noise, t' = s t / (1 + (s-1) t)."
    )
    sigma_data: float = Field(0.5, gt=0, description="EDM: standard deviation of the data.")

    # ---- optimiser ----
    muon_learning_rate: float = Field(
        0.02, ge=0, description="For hidden matrices; 0 = these get AdamW as well."
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="Nesterov momentum of Muon.")
    muon_steps: int = Field(5, ge=1, le=10, description="Newton-Schulz iterations of Muon.")
    adamw_learning_rate: float = Field(2e-3, gt=0, description="For everything else.")
    adamw_betas: tuple[float, float] = Field((0.9, 0.99), description="Of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled; on matrices only.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest global gradient norm.")
    warmup_steps: int = Field(15, ge=0, description="Steps of linear warm-up.")
    cooldown_share: float = Field(
        0.4, ge=0, le=1, description="Share of steps, at the end, of linear cool-down to 0."
    )
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Of the averaged weights, a step.")
    max_skipped_steps: int = Field(
        20, ge=0, description="Non-finite steps that are skipped before the run is given up."
    )

    # ---- looking at it ----
    sampler: Literal["euler", "ddim", "ddpm", "dpm++"] = Field(
        "euler", description="Of grids and of the exported pipeline; euler is DDIM for DDPM."
    )
    guidance_scale: float = Field(2.5, ge=1, description="Classifier-free guidance; 1 = none.")
    sampling_steps: int = Field(12, gt=0, description="Sampler steps a picture.")
    sampling_shift: float | None = Field(
        None, gt=0, description="Flow: shift of sampling times; none = discrete_flow_shift."
    )
    validation_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="Held out: pictures whose key's hash lies below it, so that a selection that "
        "grows never moves one into training. Of a few dozen pictures that may be none.",
    )
    validation_samples: int = Field(
        64, ge=0, description="Held-out pictures that are looked at, at most; 0 = none held out."
    )
    validate_every: int = Field(
        0, ge=0, description="Steps; 0 = at the end only.", json_schema_extra=OPERATIONAL
    )
    grid_prompts: tuple[str, ...] = Field(
        (),
        description="Prompts of the sample grids; none = captions of held-out pictures.",
        json_schema_extra=OPERATIONAL,
    )
    grid_size: int = Field(
        16,
        ge=0,
        description="Pictures in a sample grid; 0 = no grids.",
        json_schema_extra=OPERATIONAL,
    )
    grid_every: int = Field(
        0, ge=0, description="Steps; 0 = at the end only.", json_schema_extra=OPERATIONAL
    )

    # ---- how it works ----
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
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (), description="Where metrics go beside metrics.parquet.", json_schema_extra=OPERATIONAL
    )
    precision: Precision = Field(
        "auto",
        description="fp32, or bf16 with fp32 master weights; auto = bf16 where it is faster.",
    )
    device: Device = Field(
        "auto",
        description="cpu, cuda, cuda:1; auto = a GPU if any.",
        json_schema_extra=OPERATIONAL,
    )
    noise_on: Literal["device", "cpu"] = Field(
        "device", description="Where noise is drawn; cpu = the same numbers on every machine."
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="Several processes: each a whole model, or a share of every weight (FSDP2).",
        json_schema_extra=OPERATIONAL,
    )
    compile: Literal["auto", "none", "blocks"] = Field(
        "auto",
        description="torch.compile of each block; auto = on a GPU.",
        json_schema_extra=OPERATIONAL,
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute blocks twice rather than keep what backward needs.",
        json_schema_extra=OPERATIONAL,
    )
    threads: int = Field(
        0, ge=0, description="CPU threads; 0 = PyTorch's choice.", json_schema_extra=OPERATIONAL
    )
    loader_workers: int = Field(
        0,
        ge=0,
        description="Processes that decode pictures ahead; 0 = the training process itself.",
        json_schema_extra=OPERATIONAL,
    )
    cache: Path | None = Field(
        None,
        description="Folder of indexes, precomputed pictures, latents and text features; none = "
        "DATASET/training.",
        json_schema_extra=OPERATIONAL,
    )
    shards_from: str | None = Field(
        None,
        description="Folder or object store (s3://...) that holds the dataset's tars, if not the "
        "dataset.",
        json_schema_extra=OPERATIONAL,
    )
    merge_lora: bool = Field(
        False,
        description="Adapters: write a whole pipeline with them merged, beside the adapters.",
        json_schema_extra=OPERATIONAL,
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
    def _parts_fit(self) -> TrainSettings:
        own = {"flow": ("sample", "velocity"), "ddpm": ("sample", "epsilon", "v_prediction")}
        if self.prediction_type not in own.get(self.objective, (self.prediction_type,)):
            raise ValueError(
                f"objective {self.objective} predicts {' or '.join(own[self.objective])}, not "
                f"{self.prediction_type}"
            )
        refuse_sampler(self.objective, self.sampler)
        refuse_sampling_steps(self.objective, self.sampling_steps)
        if self.objective != "ddpm" and (self.snr_gamma is not None or self.zero_terminal_snr):
            raise ValueError(
                f"snr_gamma and zero_terminal_snr are DDPM's; objective {self.objective} has none"
            )
        if self.lora_rank and self.new_tokens:
            raise ValueError("lora_rank and new_tokens are two ways; take one")
        if (self.lora_rank or self.new_tokens) and self.init_from is None:
            raise ValueError("adapters and new tokens need init_from, the model that they change")
        if self.quantise_base != "none" and not self.lora_rank:
            raise ValueError("quantise_base is for the frozen weights under lora_rank")
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError("gradient_accumulation_steps must divide batch_size")
        return self


def seed_of(settings: TrainSettings, stream: Literal["weights", "data", "noise"]) -> int:
    """The seed of one of the three streams of random numbers that make a run."""
    own: int | None = getattr(settings, f"{stream}_seed")
    return settings.seed if own is None else own


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
    if settings.init_from is not None:
        values["source"] = settings.init_from
    return load_settings(ModelConfig, None, values)
