"""Write a trained model as a folder that diffusers loads without our code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from curate.base.errors import ConfigError
from curate.base.files import write_text
from train.adapters import has_lora, save_lora, save_new_tokens, with_lora_merged
from train.backbones.conditions import CONDITIONS_FILE
from train.export.model_card import adapter_card, pipeline_card
from train.sample import scheduler_of

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

    from train.model import Trained

# diffusers squashes latents through 3 tanh(x / 3), which is the identity for tiny ones only.
_LATENT_SCALE = 1000.0
_SWITCHES = {
    # Empty captions were encoded in training, so they are in sampling.
    "force_zeros_for_empty_prompt": False,
    "requires_safety_checker": False,
    "add_watermarker": False,
}
"""Arguments of the pipelines' classes that are no parts, where a class has them."""
_UNSHIFTED = (
    "StableDiffusionPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "SanaPipeline",
)
"""Pipelines that know an autoencoder's scaling_factor alone."""


def export_run(trained: Trained, run: Path) -> None:
    """Write what a run trained: pipeline/, or lora/, or learned_embeds.safetensors.

    With `merge_lora` the pipeline is written beside the adapters.
    """
    settings = trained.settings
    if has_lora(trained.model):
        save_lora(trained, run / "lora")
        save_conditions(trained, run / "lora")
        _save_beside(trained, run / "lora")
        if not settings.merge_lora:
            return
    elif settings.new_tokens:
        save_new_tokens(trained.model, run)
        _save_beside(trained, run)
        return
    export_pipeline(trained, run / "pipeline")


def _save_beside(trained: Trained, folder: Path) -> None:
    """Write what stands beside adapters or embeddings: the run's scheduler, and a card."""
    scheduler_of(trained).save_pretrained(folder / "scheduler")
    write_text(folder / "README.md", adapter_card(trained))


def export_pipeline(trained: Trained, folder: Path | str) -> Path:
    """Save all parts in float32, the run's own scheduler, and a card for `DiffusionPipeline`.

        pipe = DiffusionPipeline.from_pretrained(folder)

    Steps and guidance are arguments of the pipeline's call that no file can set; the card says
    the call that draws the pictures of `train.sample.generate`. A model of pixels gets an
    autoencoder that only enlarges, since each pipeline asks for one and its own sizes are large.
    Low-rank adapters are merged into a copy of the network.

    Raises:
        ConfigError: as `check_exportable`.
    """
    import diffusers

    check_exportable(trained)
    folder, model = Path(folder), trained.model
    pipeline_class = getattr(diffusers, model.backbone.pipeline)
    accepted = signature(pipeline_class.__init__).parameters
    parts = {
        "vae": enlarging_autoencoder() if model.latents.factor == 1 else None,
        **model.text.parts(),
        **model.latents.parts(),
        model.backbone.row.part: with_lora_merged(model.backbone.inner),
        "scheduler": scheduler_of(trained),
    }
    required = {
        name: None
        for name, parameter in accepted.items()
        if name != "self" and parameter.default is Parameter.empty
    }
    switches = {name: value for name, value in _SWITCHES.items() if name in accepted}
    with _in_float32(parts):
        pipeline = pipeline_class(**{**required, **switches, **parts})
        pipeline.save_pretrained(folder, safe_serialization=True)
    save_conditions(trained, folder)
    write_text(folder / "README.md", pipeline_card(trained))
    return folder


def check_exportable(trained: Trained) -> None:
    """Refuse, before a run, what could not be exported after it.

    Raises:
        ConfigError: the model has parts, or scales its latents in a way, that its pipeline in
            diffusers does not know, or the objective has no such sampler.
    """
    import diffusers

    model, name = trained.model, trained.model.backbone.pipeline
    accepted = signature(getattr(diffusers, name).__init__).parameters
    latents = model.latents.parts()
    unknown = sorted({**model.text.parts(), **latents}.keys() - accepted.keys())
    if unknown:
        raise ConfigError(
            f"diffusers' {name} has no {' and no '.join(unknown)}; name the model's parts as it "
            f"does."
        )
    for part, autoencoder in latents.items():
        if name in _UNSHIFTED and autoencoder.config.get("shift_factor"):
            raise ConfigError(
                f"The latents of {part} have a shift_factor, which diffusers' {name} does not undo."
            )
    scheduler_of(trained)


def save_conditions(trained: Trained, folder: Path) -> None:
    """Write the embeddings of the scores that the model is told, if it is told any."""
    if trained.model.conditions is not None:
        trained.model.conditions.save(folder / CONDITIONS_FILE)


@contextmanager
def _in_float32(parts: Mapping[str, Any]) -> Iterator[None]:
    """The networks of `parts` on the CPU in float32; afterwards each as it was."""
    stored = torch.device("cpu"), torch.float32
    before = {
        network: (parameter.device, parameter.dtype)
        for network in parts.values()
        if isinstance(network, nn.Module)
        and (parameter := next(network.parameters())) is not None
        and (parameter.device, parameter.dtype) != stored
    }
    try:
        for network in before:
            network.to(*stored)
        yield
    finally:
        for network, (device, dtype) in before.items():
            network.to(device, dtype)


@torch.no_grad()
def enlarging_autoencoder() -> AutoencoderTiny:
    """A decoder whose pictures (B, 3, 8 R, 8 R) are its latents (B, 3, R, R), each pixel a square.

    Its ReLU passes positive and negative parts in channels of their own; every convolution copies
    the pixel in its middle. Nothing is ever encoded: the encoder is zero.
    """
    from diffusers import AutoencoderTiny

    parts = (6, 6, 6, 6)  # three doublings between four convolutions
    autoencoder = AutoencoderTiny(
        encoder_block_out_channels=parts,
        decoder_block_out_channels=parts,
        num_encoder_blocks=(0, 0, 0, 0),
        num_decoder_blocks=(0, 0, 0, 0),
        latent_channels=3,
        scaling_factor=_LATENT_SCALE,
    )
    for parameter in autoencoder.parameters():
        parameter.zero_()
    convolutions = [
        layer for layer in autoencoder.decoder.layers if isinstance(layer, torch.nn.Conv2d)
    ]
    first, *copying, last = convolutions
    split = torch.cat([torch.eye(3), -torch.eye(3)])
    first.weight[:, :, 1, 1] = split
    for layer in copying:
        layer.weight[:, :, 1, 1] = torch.eye(6)
    # The decoder ends with 2 x - 1.
    last.weight[:, :, 1, 1] = split.T * (_LATENT_SCALE / 2)
    assert last.bias is not None
    last.bias.fill_(0.5)
    return autoencoder.eval()
