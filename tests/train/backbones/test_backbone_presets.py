"""Presets describe the networks that they are named after."""

import pytest
import torch

from train.backbones import build_backbone
from train.settings import load_train_settings, model_config

# Preset: parameters of the published or declared network, in all; widths of the text and the
# pooled text, channels and factor of the latents.
PUBLISHED = {
    "sd15": (859_520_964, 768, 0, 4, 8),
    "sd2": (865_910_724, 1024, 0, 4, 8),
    "sdxl": (2_567_463_684, 2048, 1280, 4, 8),
    "sd3": (2_028_328_000, 4096, 2048, 16, 8),
    "flux": (11_901_408_320, 4096, 768, 16, 8),
    "pixart": (610_856_096, 4096, 0, 4, 8),
    "sana": (1_604_462_752, 2304, 0, 32, 32),
    # The text encoder's 3.7 M are not counted here.
    "dit-33m": (29_928_000, 256, 0, 3, 1),
    "dit-130m": (131_000_000, 4096, 0, 4, 8),
}
PIPELINES = {
    "sd15": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "pixart": "PixArtSigmaPipeline",
    "sana": "SanaPipeline",
    "dit-33m": "PixArtSigmaPipeline",
    "dit-130m": "PixArtSigmaPipeline",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_builds_its_network_without_the_hub(name: str) -> None:
    settings = load_train_settings(None, {"model": name})
    config = model_config(settings).model_copy(update={"source": None})
    count, text_width, pooled_width, channels, factor = PUBLISHED[name]
    with torch.device("meta"):
        backbone = build_backbone(config, text_width, pooled_width, channels, 0, factor=factor)
    found = sum(parameter.numel() for parameter in backbone.parameters())
    assert found == pytest.approx(count, rel=0.005)
    assert backbone.pipeline == PIPELINES[name]
    # What the published text encoders give is what the preset's encoders say that they give.
    assert bool(pooled_width) == any(text.pooled for text in config.text)
