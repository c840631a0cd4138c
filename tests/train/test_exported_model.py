"""Each family exported, read again by diffusers, and drawn with the line of its own card."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from tests.train import tiny_families as families
from train.assemble import build_model
from train.backbones import ConditionTokens, load_backbone
from train.export.pipeline import enlarging_autoencoder, export_pipeline
from train.latents import build_latents
from train.model import TextToImage, Trained
from train.objectives import build_objective
from train.sample import generate
from train.settings import ModelConfig, load_train_settings, model_config
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
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    *before, draw = "".join(blocks).strip().splitlines()
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


STRANGER = """
import os, re, sys
import numpy as np, torch
for name in ("curate", "train", "pipelines", "recaption"):
    sys.modules[name] = None  # importing it fails
for folder in sys.argv[1:]:
    os.chdir(folder)
    (lines,) = re.findall(r"```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
    *before, draw = lines.strip().splitlines()
    exec("\\n".join(before))
    torch.manual_seed(5)
    exec(draw)
    np.save("drawn.npy", np.asarray(picture))
"""


def model_of_pixels(predicts: str) -> Trained:
    told: dict[str, Any] = {"resolution": 32, "sampling_steps": 8, "guidance_scale": 2.0}
    settings = load_train_settings(
        None, {"model": "tiny-test", "prediction_type": predicts, **told}
    )
    config = model_config(settings)
    model = build_model(config, settings, ["a red circle", "a blue square"])
    families.scattered(model.backbone)
    return Trained(model, settings, config)


def test_models_of_pixels_are_drawn_enlarged_where_our_code_is_not(tmp_path: Path):
    models = {predicts: model_of_pixels(predicts) for predicts in ("sample", "velocity")}
    folders = {name: export_pipeline(own, tmp_path / name) for name, own in models.items()}
    # One interpreter for all: its imports take longer than the pictures.
    subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *folders.values()],
        check=True, env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, capture_output=True,
    )  # fmt: skip
    for name, trained in models.items():
        drawn = np.load(folders[name] / "drawn.npy").astype(int)
        own = generate(trained, ["a red circle"], seed=5)[0]
        assert drawn.shape == (256, 256, 3)
        assert own.std() > 10
        assert np.abs(drawn - drawn[::8, ::8].repeat(8, 0).repeat(8, 1)).max() == 0
        assert np.abs(drawn[::8, ::8] - own).max() <= 2


def test_the_autoencoder_shows_latents_as_they_are_eight_times_as_large():
    autoencoder = enlarging_autoencoder()
    latents = torch.linspace(-3, 3, 3 * 4 * 4).reshape(1, 3, 4, 4)
    shown = autoencoder.decode(latents / autoencoder.config.scaling_factor).sample
    enlarged = latents.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(shown, enlarged, atol=2e-5, rtol=0)


def test_latents_that_the_pipeline_would_not_shift_back_are_refused(tmp_path: Path):
    trained = trained_family("pixart", tmp_path)
    trained.model.latents.parts()["vae"].register_to_config(shift_factor=0.1)
    with pytest.raises(ConfigError, match="PixArtSigmaPipeline does not undo"):
        export_pipeline(trained, tmp_path / "pipeline")


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "pixart", "sana"])
def test_the_card_says_how_to_ask_for_scores(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores = ("aesthetic", "sharpness")
    told: dict[str, Any] = {"condition_on": scores, "condition_buckets": 4}
    # Two tokens of eighty say little in a network of one layer.
    trained = trained_family(name, tmp_path, guidance_scale=30.0, **told)
    tokens = ConditionTokens(2, 4, trained.model.text.width)
    tokens.table.data.mul_(300)
    trained.model.conditions = tokens
    folder = export_pipeline(trained, tmp_path / "pipeline")
    highest = dict.fromkeys(scores, 4)
    own = generate(trained, ["a red circle"], seed=5, conditions=highest)[0].astype(int)
    assert np.abs(generate(trained, ["a red circle"], seed=5)[0] - own).max() > 5
    by_card = drawn_by_the_card(folder, 5, monkeypatch)
    assert np.abs(by_card.astype(int) - own).max() <= 2
