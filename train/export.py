"""Write a trained model as a folder that diffusers loads without our code: PixArtSigmaPipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from curate.base.files import write_text
from train.sample import Trained

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

ENLARGEMENT = 8
"""The pipeline draws each pixel of the model as a square of this side."""
STOCK_SIDES = (32, 64, 128, 256)
"""Resolutions for which the pipeline has a size of its own, ENLARGEMENT times as large."""
# diffusers squashes latents through 3 tanh(x / 3), which is the identity for tiny ones only.
_LATENT_SCALE = 1000.0


def export_pipeline(trained: Trained, folder: Path | str) -> Path:
    """Save all parts, an autoencoder that only enlarges, and a card for `DiffusionPipeline`.

        pipe = DiffusionPipeline.from_pretrained(folder)
        pipe("a red circle").images[0]

    The model works on pixels; the autoencoder that the pipeline asks for repeats each of them
    ENLARGEMENT times either way, so that the pipeline's own sizes fit (at STOCK_SIDES; others
    need a height and a width). Steps and guidance scale are arguments of the pipeline's call that
    no file can set: without them it takes PixArt's (20 and 4.5); with those of the run, which
    stand in the card, the picture is that of `train.sample.generate`.

    The scheduler is first-order DPM-Solver++ over flow times, which is the Euler step of
    `train.sample`, at the same timesteps but for rounding to whole thousandths. Weights are
    float32.
    """
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

    folder = Path(folder)
    settings = trained.settings
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="sample" if settings.prediction == "x0" else "flow_prediction",
        use_flow_sigmas=True,
        flow_shift=settings.sampling_shift,
        solver_order=1,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
    )
    # A pipeline may move its parts; the caller's model keeps its precision and device.
    text_encoder, transformer = trained.model.text_encoder, trained.model.transformer
    dtype, device = trained.dtype, trained.device
    try:
        pipeline = PixArtSigmaPipeline(
            tokenizer=trained.tokenizer,
            text_encoder=text_encoder.to("cpu", torch.float32),
            vae=enlarging_autoencoder(),
            transformer=transformer.to("cpu", torch.float32),
            scheduler=scheduler,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
    finally:
        trained.model.to(device, dtype)
    write_text(folder / "README.md", model_card(trained))
    return folder


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


def model_card(trained: Trained) -> str:
    """README.md of the exported folder: how to draw with it, in lines that run as they stand."""
    settings, side = trained.settings, trained.model.config.resolution
    stock = side in STOCK_SIDES
    run = f"num_inference_steps={settings.sampling_steps}, guidance_scale={settings.guidance_scale}"
    large = ENLARGEMENT * side
    size = "" if stock else f", height={large}, width={large}, use_resolution_binning=False"
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
tags: [text-to-image, caption-lab]
---

# A text-to-image model of {side} x {side} pixels

```python
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(".")  # this folder
picture = pipe("a red circle"{size}).images[0]
```

Each of the model's pixels is drawn as a square of {ENLARGEMENT} x {ENLARGEMENT}: \
`picture.resize(({side}, {side}), 0)` gives them back.

The run itself samples with {settings.sampling_steps} steps at guidance \
{settings.guidance_scale}; without arguments diffusers takes 20 steps at 4.5. As the run does:

```python
picture = pipe("a red circle", {run}{size}).images[0]
```
"""
