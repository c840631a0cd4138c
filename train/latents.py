"""The space of pictures that a backbone works in: pixels, or an autoencoder's latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from curate.base.errors import ConfigError
from curate.base.settings import dtype_of
from train.model_settings import LatentsConfig, ModelConfig
from train.protocols import Latents
from train.sources import find_part, load_part, part_class, part_folder, weights_hash


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
    dtype = dtype_of(own.precision)
    options = {"use_safetensors": True, "torch_dtype": dtype}
    model = load_part(part_class(place, own.name), place, own.name, **options)
    name = type(model).__name__
    if name not in _AUTOENCODERS:
        known = ", ".join(_AUTOENCODERS)
        raise ConfigError(f"{name} is no autoencoder of pictures; there are {known}.")
    return _AUTOENCODERS[name](model, own, weights_hash(part_folder(place, own.name)))


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
        """
        Args:
            weights: their hash.
        """
        self.model = model.eval().requires_grad_(False)
        self.config, self._weights = config, weights
        self.channels, self.factor = _shape(model)
        self._mean, self._scale = _scaling(model.config)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, C, h, w) float32 from (B, 3, H, W) in -1..1."""
        z = self._encode(pictures.to(self.model.dtype)).float()
        return (z - self._mean.to(z.device)) * self._scale.to(z.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in about -1..1, from (B, C, h, w)."""
        z = latents.float() / self._scale.to(latents.device) + self._mean.to(latents.device)
        return self._decode(z.to(self.model.dtype)).float()

    def _encode(self, pictures: Tensor) -> Tensor:
        output = self.model.encode(pictures)
        if hasattr(output, "latent_dist"):
            mode: Tensor = output.latent_dist.mode()
            return mode
        # AutoencoderDC's and AutoencoderTiny's are not drawn.
        latents: Tensor = output.latent if hasattr(output, "latent") else output.latents
        return latents

    def _decode(self, z: Tensor) -> Tensor:
        pictures: Tensor = self.model.decode(z, return_dict=False)[0]
        return pictures

    def to(self, device: Any) -> AutoencoderLatents:
        """Move the autoencoder."""
        self.model.to(device)
        return self

    def identity(self) -> dict[str, Any]:
        """Hash of the weights, scaling and precision."""
        return {
            **self.config.model_dump(mode="json"),
            "class": type(self.model).__name__,
            "mean": self._mean.flatten().tolist(),
            "scale": self._scale.flatten().tolist(),
            "weights": self._weights,
        }

    def parts(self) -> dict[str, Any]:
        """The autoencoder."""
        return {self.config.name: self.model}


class FilmLatents(AutoencoderLatents):
    """AutoencoderKLQwenImage: a picture is a film of one frame, (B, C, 1, H, W)."""

    def _encode(self, pictures: Tensor) -> Tensor:
        return super()._encode(pictures[:, :, None])[:, :, 0]

    def _decode(self, z: Tensor) -> Tensor:
        return super()._decode(z[:, :, None])[:, :, 0]


class PatchedLatents(AutoencoderLatents):
    """AutoencoderKLFlux2: 2 x 2 latents are one of four times the channels, batch-normalised."""

    def __init__(self, model: Any, config: LatentsConfig, weights: str) -> None:
        super().__init__(model, config, weights)
        self.channels *= 4
        self.factor *= 2
        deviation = (model.bn.running_var.float() + model.config.batch_norm_eps).sqrt()
        self._mean = model.bn.running_mean.float().view(1, -1, 1, 1)
        self._scale = 1 / deviation.view(1, -1, 1, 1)

    def _encode(self, pictures: Tensor) -> Tensor:
        return pixel_unshuffle(super()._encode(pictures), 2)

    def _decode(self, z: Tensor) -> Tensor:
        return super()._decode(pixel_shuffle(z, 2))


_AUTOENCODERS = {
    "AutoencoderKL": AutoencoderLatents,
    "AutoencoderDC": AutoencoderLatents,
    "AutoencoderTiny": AutoencoderLatents,
    "AutoencoderKLQwenImage": FilmLatents,
    "AutoencoderKLFlux2": PatchedLatents,
}


def _shape(model: Any) -> tuple[int, int]:
    """Channels, and pixels a side of one latent."""
    config = model.config
    if (frames := config.get("temperal_downsample")) is not None:
        return int(config.z_dim), int(2 ** len(frames))
    if hasattr(model, "spatial_compression_ratio"):
        return int(config.latent_channels), int(model.spatial_compression_ratio)
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return int(config.latent_channels), int(2 ** (len(blocks) - 1))


def _scaling(config: Any) -> tuple[Tensor, Tensor]:
    """Mean and scale of each channel (1, C or 1, 1, 1) float32, by which z becomes a latent."""

    def channels(name: str, default: float) -> Tensor:
        numbers = default if config.get(name) is None else config.get(name)
        return torch.as_tensor(numbers, dtype=torch.float32).reshape(1, -1, 1, 1)

    scale = channels("scaling_factor", 1.0)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        return channels("latents_mean", 0.0), scale / channels("latents_std", 1.0)
    return channels("shift_factor", 0.0), scale
