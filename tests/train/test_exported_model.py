"""Each family exported, read again by diffusers, and drawn with the line of its own card."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.train import tiny_families as families
from train.backbones import load_backbone
from train.export import export_pipeline
from train.latents import build_latents
from train.model import TextToImage, Trained
from train.objectives import build_objective
from train.sample import generate
from train.settings import ModelConfig, load_train_settings
from train.text import build_text

CLIP = {"kind": "clip", "tokens": 77}
POOLED = {**CLIP, "layer": -2, "pooled": True}
T5 = {"kind": "t5", "tokens": 16}
FLOW = {"objective": "flow", "prediction_type": "velocity", "sampling_shift": 3.0}
DDPM = {"objective": "ddpm", "prediction_type": "epsilon", "sampler": "ddim"}
V = {**DDPM, "prediction_type": "v_prediction", "zero_terminal_snr": True}
EDM = {"objective": "edm", "prediction_type": "sample"}

UNET_TEXT = [CLIP]
SDXL_TEXT = [
    {**CLIP, "layer": -2},
    {**POOLED, "name": "text_encoder_2"},
]
SD3_TEXT = [POOLED, {**POOLED, "name": "text_encoder_2"}]
SD3_LONG = [*SD3_TEXT, {**T5, "name": "text_encoder_3"}]
FLUX_TEXT = [
    {**CLIP, "sequence": False, "pooled": True},
    {**T5, "name": "text_encoder_2"},
]
PIXART_TEXT = [{**T5, "masked": True, "lower_case": True}]
SANA_TEXT = [
    {
        "kind": "decoder",
        "tokens": 16,
        "masked": True,
        "lower_case": True,
        "options": {"prefix": "instruction"},
    }
]
SANA_INSTRUCTION = [{**SANA_TEXT[0], "template": "left of the square: {}"}]
FAMILIES: dict[str, tuple[Callable[[], Any], str, list[dict[str, Any]], dict[str, Any]]] = {
    "sd15": (families.stable_diffusion, "unet", UNET_TEXT, DDPM),
    "sd15 ddpm": (families.stable_diffusion, "unet", UNET_TEXT, {**DDPM, "sampler": "ddpm"}),
    "sd15 flow": (families.stable_diffusion, "unet", UNET_TEXT, FLOW),
    "sd15 dpm++": (families.stable_diffusion, "unet", UNET_TEXT, {**DDPM, "sampler": "dpm++"}),
    "sd2": (families.stable_diffusion, "unet", UNET_TEXT, V),
    "sdxl": (families.stable_diffusion_xl, "unet", SDXL_TEXT, DDPM),
    "sd3": (
        families.stable_diffusion_3,
        "sd3",
        [*SD3_TEXT, {**T5, "name": "text_encoder_3"}],
        FLOW,
    ),
    "sd3 without t5": (lambda: families.stable_diffusion_3(False), "sd3", SD3_TEXT, FLOW),
    "flux": (families.flux, "flux", FLUX_TEXT, FLOW),
    "flux dev": (lambda: families.flux(guidance_embeds=True), "flux", FLUX_TEXT, FLOW),
    "pixart": (families.pixart, "pixart", PIXART_TEXT, DDPM),
    "pixart flow": (families.pixart, "pixart", PIXART_TEXT, FLOW),
    "pixart edm": (families.pixart, "pixart", PIXART_TEXT, EDM),
    "pixart edm dpm++": (families.pixart, "pixart", PIXART_TEXT, {**EDM, "sampler": "dpm++"}),
    "sana": (families.sana, "sana", SANA_TEXT, FLOW),
    "sana with an instruction": (families.sana, "sana", SANA_INSTRUCTION, FLOW),
}


Picture = NDArray[np.uint8]


def trained_family(name: str, folder: Path, **settings: Any) -> Trained:
    """A family's tiny random model, as a run would have left it."""
    make, kind, text, objective = FAMILIES[name]
    torch.manual_seed(0)
    source = families.saved(make(), folder / "source")
    config = ModelConfig.model_validate(
        {
            "source": str(source),
            "resolution": families.SIDE,
            "backbone": {"kind": kind},
            "text": text,
            "latents": {"kind": "autoencoder"},
        }
    )
    told = {"sampling_steps": 4, "guidance_scale": 8.0, "init_from": str(source)}
    made = load_train_settings(None, {"model": "tiny-test", **told, **objective, **settings})
    model = TextToImage(
        load_backbone(source, config),
        build_text(config),
        build_latents(config),
        build_objective(made),
    )
    return Trained(model.eval(), made, config)


def drawn_by_the_card(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Picture:
    """The picture that a README.md's lines draw in its folder, from the noise of a seed."""
    (lines,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    *before, draw = lines.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(before), names)
    torch.manual_seed(seed)
    exec(draw, names)
    return np.asarray(names["picture"])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cards_lines_draw_our_samplers_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = trained_family(name, tmp_path)
    folder = export_pipeline(trained, tmp_path / "pipeline")
    own = generate(trained, ["a red circle"], seed=5)[0]
    by_card = drawn_by_the_card(folder, 5, monkeypatch)
    assert own.std() > 10  # a picture, not a plain grey
    assert np.abs(by_card.astype(int) - own).max() <= 2
    without = generate(trained, ["a red circle"], seed=5, guidance_scale=1)[0]
    assert np.abs(without.astype(int) - own).max() > 10
