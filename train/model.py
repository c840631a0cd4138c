"""The parts of a text-to-image model joined, and how a run is loaded again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_record
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from curate.base.weights import load_state_dict
from train.model_settings import ModelConfig
from train.protocols import Latents, Objective, TextFeatures, Tokens
from train.settings import TrainSettings

if TYPE_CHECKING:
    from train.backbones.conditions import ConditionTokens


class TextToImage(nn.Module):
    """Captions and a noised picture in, the network's output out.

    Children are what may be trained: `backbone`, `text` and, where the model is told scores,
    `conditions`. `latents` and `objective` are plain attributes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        text: nn.Module,
        latents: Latents,
        objective: Objective,
        conditions: ConditionTokens | None = None,
    ) -> None:
        super().__init__()
        self.text: Any = text
        self.backbone: Any = backbone
        self.conditions = conditions
        self.latents = latents
        self.objective = objective
        self.computes_in: torch.dtype | None = None
        """Where weights are kept in another precision than they compute in (FSDP)."""

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tokens | TextFeatures,
        size_ids: Tensor | None = None,
        conditions: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Output (B, C, h, w).

        Args:
            x: `Objective.model_input` (B, C, h, w), in the model's dtype.
            time: `Objective.model_time` (B,), float32.
            text: tokens, or features that were computed before.
            size_ids: (B, 6), as in Batch; conditions: (B, n) int64, 0 = not told.
            guidance: told to networks that were distilled to imitate it.
        """
        features = text if isinstance(text, TextFeatures) else self.text(text)
        if self.conditions is not None and conditions is not None:
            features = self.conditions(features, conditions)
        output: Tensor = self.backbone(x, time, features, size_ids, guidance)
        return output

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.backbone.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        dtype: torch.dtype = next(self.backbone.parameters()).dtype
        return self.computes_in or dtype

    def patches(self, resolution: int) -> int:
        """Places that the backbone looks at in a square picture."""
        patch = self.backbone.config.get("patch_size") or 1
        return int((resolution // (self.latents.factor * patch)) ** 2)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_parts(self) -> list[Any]:
        """The children that hold something that is trained."""
        return [
            child for child in self.children() if any(p.requires_grad for p in child.parameters())
        ]


@dataclass(frozen=True)
class Trained:
    """A model with the settings that it was trained with, ready to sample."""

    model: TextToImage
    settings: TrainSettings
    config: ModelConfig

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype


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
    from train.text import build_text

    config = config.model_copy(update={"source": pipeline_of(config.source)})
    text = build_text(config, texts, source, settings.seed)
    model = _joined(config, settings, text, None if settings.init_from is None else config.source)
    if settings.lora_rank:
        from train.adapters import add_lora

        add_lora(model, settings)
    elif settings.new_tokens:
        from train.adapters import add_tokens

        add_tokens(model, settings)
    return model


def pipeline_of(source: str | None) -> str | None:
    """A run means the pipeline that it exported; a pipeline's folder or hub id means itself."""
    if source is not None and (Path(source) / "pipeline" / "model_index.json").exists():
        return str(Path(source) / "pipeline")
    return source


def _joined(
    config: ModelConfig, settings: TrainSettings, text: Any, weights: Path | str | None
) -> TextToImage:
    """Text encoder and the other parts; the backbone's weights from `weights` if given."""
    from train.backbones import ConditionTokens, build_backbone, load_backbone
    from train.latents import build_latents
    from train.objectives import build_objective

    latents = build_latents(config)
    widths = (text.width, text.pooled_width, latents.channels)
    if weights is None:
        backbone = build_backbone(config, *widths, settings.seed, latents.factor)
    else:
        backbone = load_backbone(weights, config, torch.float32, *widths)
        if settings.quantise_base != "none":
            from train.adapters import quantise

            quantise(backbone, weights, settings.quantise_base)
    conditions = None
    if settings.condition_on:
        conditions = ConditionTokens(
            len(settings.condition_on), settings.condition_buckets, text.width, settings.seed
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
            stored = load_state_dict(folder / "conditions.safetensors")
            model.conditions.load_state_dict(stored)
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
