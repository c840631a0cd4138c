"""The space of pictures that a backbone works in: pixels, or an autoencoder's latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curate.base.errors import ConfigError
from train.model_settings import LatentsConfig, ModelConfig
from train.protocols import Latents
from train.sources import find_part, load_part, part_class, part_folder, weights_hash

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_latents(config: ModelConfig, source: Path | None = None) -> Latents:
    """The latents of a model, on the CPU.

    Args:
        source: a run's or pipeline's folder that is looked into before `config.source`.

    Raises:
        ConfigError: there is no such autoencoder, or it is not one of pictures.
    """
    own = config.latents
    if own.kind == "pixels":
        return Pixels()
    place = find_part(own.name, (source, config.source))
    if place is None:
        raise ConfigError(
            f"The autoencoder {own.name} is a published part: the model needs a "
            f"source that has it (source: {config.source or 'none'})."
        )
    cls = part_class(place, own.name)
    model = load_part(
        cls, place, own.name, use_safetensors=True, torch_dtype=_DTYPES[own.precision]
    )
    return AutoencoderLatents(model, own, weights_hash(part_folder(place, own.name)))


class Pixels:
    """No autoencoder: pictures as they are, in -1..1."""

    channels = 3
    factor = 1

    def encode(self, pictures: Tensor) -> Tensor:
        """The pictures."""
        return pictures.float()

    def decode(self, latents: Tensor) -> Tensor:
        """The latents."""
        return latents.float()

    def to(self, device: Any) -> Pixels:
        """Nothing to move."""
        return self

    def identity(self) -> dict[str, Any]:
        """Pixels."""
        return {"kind": "pixels"}

    def parts(self) -> dict[str, Any]:
        """None."""
        return {}


class AutoencoderLatents:
    """Latents of diffusers' autoencoders, scaled to about unit variance as its pipelines do.

    latent = (z - mean) * scale for every channel, where z is the most likely latent (the mode of
    AutoencoderKL's posterior), and mean and scale come from the autoencoder's config:
    shift_factor and scaling_factor, and latents_mean and latents_std where it has them.
    """

    def __init__(self, model: Any, config: LatentsConfig, weights: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.config, self._weights = config, weights
        self._adapter = _adapter(model)
        self.channels: int = self._adapter.channels
        self.factor: int = self._adapter.factor

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, C, h, w) float32 from (B, 3, H, W) in -1..1."""
        z = self._adapter.encode(pictures.to(self.model.dtype)).float()
        mean, scale = (number.to(z.device) for number in self._adapter.scaling)
        return (z - mean) * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in about -1..1, from (B, C, h, w)."""
        mean, scale = (number.to(latents.device) for number in self._adapter.scaling)
        z = latents.float() / scale + mean
        return self._adapter.decode(z.to(self.model.dtype)).float()

    def to(self, device: Any) -> AutoencoderLatents:
        """Move the autoencoder."""
        self.model.to(device)
        return self

    def identity(self) -> dict[str, Any]:
        """Hash of the weights, scaling and precision."""
        mean, scale = self._adapter.scaling
        return {
            **self.config.model_dump(mode="json"),
            "class": type(self.model).__name__,
            "mean": mean.flatten().tolist(),
            "scale": scale.flatten().tolist(),
            "weights": self._weights,
        }

    def parts(self) -> dict[str, Any]:
        """The autoencoder."""
        return {self.config.name: self.model}


class _Plain:
    """AutoencoderKL, AutoencoderDC and AutoencoderTiny."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.channels = int(config.latent_channels)
        self.scaling = _scaling(config)
        self.factor = _factor(model)

    def encode(self, pictures: Tensor) -> Tensor:
        output = self.model.encode(pictures)
        if hasattr(output, "latent_dist"):
            mode: Tensor = output.latent_dist.mode()
            return mode
        # AutoencoderDC's and AutoencoderTiny's are not drawn.
        latents: Tensor = output.latent if hasattr(output, "latent") else output.latents
        return latents

    def decode(self, z: Tensor) -> Tensor:
        pictures: Tensor = self.model.decode(z, return_dict=False)[0]
        return pictures


class _Film(_Plain):
    """AutoencoderKLQwenImage: a picture is a film of one frame, (B, C, 1, H, W)."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.channels = int(config.z_dim)
        self.scaling = _scaling(config)
        self.factor = 2 ** len(config.temperal_downsample)

    def encode(self, pictures: Tensor) -> Tensor:
        return super().encode(pictures[:, :, None])[:, :, 0]

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z[:, :, None])[:, :, 0]


class _Patched(_Plain):
    """AutoencoderKLFlux2: 2 x 2 latents are one of four times the channels, batch-normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.channels *= 4
        self.factor *= 2
        deviation = (model.bn.running_var.float() + model.config.batch_norm_eps).sqrt()
        mean = model.bn.running_mean.float()
        self.scaling = mean.view(1, -1, 1, 1).cpu(), (1 / deviation).view(1, -1, 1, 1).cpu()

    def encode(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(super().encode(pictures), 2)

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(torch.nn.functional.pixel_shuffle(z, 2))


def _adapter(model: Any) -> _Plain:
    name = type(model).__name__
    plain = ("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny")
    adapters = dict.fromkeys(plain, _Plain)
    adapters |= {"AutoencoderKLQwenImage": _Film, "AutoencoderKLFlux2": _Patched}
    if name not in adapters:
        raise ConfigError(f"{name} is no autoencoder of pictures; there are {', '.join(adapters)}.")
    return adapters[name](model)


def _scaling(config: Any) -> tuple[Tensor, Tensor]:
    """Mean and scale of each channel (1, C or 1, 1, 1) float32, by which z becomes a latent."""

    def channels(numbers: Any) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.float32).reshape(1, -1, 1, 1)

    get = config.get
    mean, deviation = get("latents_mean"), get("latents_std")
    scale = channels(get("scaling_factor") or 1.0)
    if mean is not None and deviation is not None:
        return channels(mean), scale / channels(deviation)
    return channels(get("shift_factor") or 0.0), scale


def _factor(model: Any) -> int:
    if hasattr(model, "spatial_compression_ratio"):
        return int(model.spatial_compression_ratio)
    config = model.config
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return int(2 ** (len(blocks) - 1))
