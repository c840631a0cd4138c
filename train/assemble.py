"""How a model comes to be: its parts from nothing or from published weights, or a run's again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_record
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from train.adapters import LORA_FILE
from train.backbones.conditions import CONDITIONS_FILE
from train.model import TextToImage, Trained
from train.model_settings import ModelConfig
from train.settings import TrainSettings, seed_of
from train.sources import located, refuse_missing


def build_model(
    config: ModelConfig,
    settings: TrainSettings,
    texts: Iterable[str] = (),
    source: Path | None = None,
) -> TextToImage:
    """A model ready to be trained, on the CPU: from nothing, or from `settings.init_from`.

    What is not trained asks for no gradients. Weights from nothing are functions of (seed, their
    name), so they are the same in every arm, on every rank and where another part differs.

    Args:
        texts: captions that a word tokenizer made from nothing takes its words from.
        source: a run's or pipeline's folder that is looked into before `config.source`, for a run
            that is continued or loaded: its tokenizer, or all parts.

    Raises:
        ConfigError: a part is missing, cannot be read or does not fit the others.
    """
    from train.adapters import add_lora, add_tokens, load_lora, merge_lora
    from train.text import build_text

    start = None if config.source is None else resolve(located(config.source))
    if start is not None:
        refuse_missing(start.source)
    config = config.model_copy(update={"source": start and start.source})
    text = build_text(config, texts, source, seed_of(settings, "weights"))
    model = _joined(config, settings, text, None if settings.init_from is None else config.source)
    adapters = None if start is None or settings.init_from is None else start.adapters
    if settings.lora_rank:
        add_lora(model, settings)
        if adapters is not None:
            load_lora(model, adapters)
    elif adapters is not None:
        load_lora(model, adapters)
        merge_lora(model.backbone.inner)
        model.backbone.requires_grad_(True)
    if settings.new_tokens:
        add_tokens(model, settings)
    if model.conditions is not None and start is not None and settings.init_from is not None:
        place = Path(start.source) if adapters is None else adapters.parent
        if (place / CONDITIONS_FILE).exists():
            model.conditions.take_over(place / CONDITIONS_FILE, settings.condition_on)
    return model


def _joined(
    config: ModelConfig, settings: TrainSettings, text: Any, weights: Path | str | None
) -> TextToImage:
    """Text encoder and the other parts; the backbone's weights from `weights` if given."""
    from train.backbones import ConditionTokens, build_backbone, load_backbone
    from train.latents import build_latents
    from train.objectives import build_objective

    latents = build_latents(config)
    widths = (text.width, text.pooled_width, latents.channels)
    seed = seed_of(settings, "weights")
    if weights is None:
        backbone = build_backbone(config, *widths, seed, latents.factor)
    else:
        backbone = load_backbone(weights, config, torch.float32, *widths)
        if settings.quantise_base != "none":
            from train.adapters import quantise

            quantise(backbone, weights, settings.quantise_base)
    conditions = None
    if settings.condition_on:
        conditions = ConditionTokens(
            len(settings.condition_on), settings.condition_buckets, text.width, seed
        )
    return TextToImage(backbone, text, latents, build_objective(settings), conditions).eval()


def load_trained(run: Path | str, device: str = "auto", precision: Precision = "auto") -> Trained:
    """The averaged weights of a finished run.

    Raises:
        ConfigError: there is no such device, or it cannot compute in that precision.
        DatasetError: no finished run is there, or a part of it is lost.
    """
    from train.backbones import use_fast_attention

    run = Path(run)
    config, settings = recorded(run)
    where = torch.device(device_of(device))
    dtype = dtype_of(precision_of(precision, device, matrix_tiles=True))
    if settings.lora_rank or settings.new_tokens:
        from train.adapters import load_adapters

        model = build_model(config, settings)
        load_adapters(model, settings, run)
    else:
        model = _load_pipeline(run / "pipeline", config, settings)
    model.requires_grad_(False).to(where, dtype)
    model.latents.to(where)
    use_fast_attention(model.backbone, where, model.patches(config.resolution))
    return Trained(model, settings, config)


def _load_pipeline(folder: Path, config: ModelConfig, settings: TrainSettings) -> TextToImage:
    """A model whose parts all come from the pipeline that its run exported."""
    from train.text import build_text

    if not (folder / "model_index.json").exists():
        raise DatasetError(
            f"{folder.parent} holds no finished training run; run `caplab train` first."
        )
    own = config.model_copy(update={"source": str(folder)})
    try:
        model = _joined(own, settings, build_text(own), folder)
        if model.conditions is not None:
            model.conditions.fill(folder / CONDITIONS_FILE)
    except ConfigError as error:
        raise DatasetError(f"{error} Delete the run's directory and train it again.") from error
    return model


def recorded(run: Path) -> tuple[ModelConfig, TrainSettings]:
    """What a run was told, as its record resolved it; presets may have changed since.

    Raises:
        DatasetError: there is no such record.
    """
    if not (run / "run.json").exists():
        raise DatasetError(f"{run} holds no finished training run; run `caplab train` first.")
    record = read_record(run / "run.json")
    try:
        config = ModelConfig.model_validate(record["identity"]["model_config"])
        settings = TrainSettings.model_validate(record["settings"])
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise DatasetError(
            f"{run} lacks a part of its run.json ({reason}). Delete the run's directory and train "
            f"it again."
        ) from error
    return config, settings


@dataclass(frozen=True)
class Start:
    """Where a model's parts come from."""

    source: str
    """Pipeline in diffusers' layout, a folder or a hub id: frozen parts and the backbone."""
    adapters: Path | None = None
    """Low-rank adapters on that backbone."""


def resolve(init_from: str) -> Start:
    """A run means the pipeline that it exported, or its own start and its adapters upon that.

    Raises:
        ConfigError: a folder that is neither a pipeline nor a run, or a run of new tokens, which
            holds no network.
        DatasetError: a run that is not finished.
    """
    folder = Path(init_from)
    if not folder.exists() or (folder / "model_index.json").exists():
        return Start(init_from)
    if not (folder / "run.json").exists():
        raise ConfigError(f"init_from {init_from} is neither a pipeline's folder nor a run.")
    if (folder / "pipeline" / "model_index.json").exists():
        return Start(str(folder / "pipeline"))
    settings = read_record(folder / "run.json").get("settings", {})
    if settings.get("new_tokens"):
        raise ConfigError(
            f"{init_from} trained new tokens alone; start from its base, {settings['init_from']}."
        )
    if not (folder / "lora" / LORA_FILE).exists():
        raise DatasetError(f"{init_from} holds no finished training run; run `caplab train` first.")
    return Start(resolve(str(settings["init_from"])).source, folder / "lora" / LORA_FILE)
