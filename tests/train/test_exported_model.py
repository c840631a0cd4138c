"""The exported folder, read by diffusers in a process that has none of our packages."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from tests.train.tiny_run import tiny
from train.export import enlarging_autoencoder, export_pipeline
from train.model import build_model
from train.sample import Trained, generate
from train.settings import model_config
from train.tokenizer import build_tokenizer

STRANGER = """
import re, sys
import numpy as np, torch
folder = sys.argv[1]
for name in ("curate", "train", "pipelines", "recaption"):
    sys.modules[name] = None  # importing it fails
card = open(f"{folder}/README.md").read()
plain, as_the_run = re.findall(r"```python\\n(.*?)```", card, re.DOTALL)
pictures = []
for lines in (plain, plain + as_the_run):
    *before, draw = lines.replace('"."', "folder").strip().splitlines()
    exec("\\n".join(before))
    torch.manual_seed(5)
    exec(draw)
    pictures.append(np.asarray(picture))
np.save(f"{folder}/drawn.npy", np.stack(pictures))
"""


def test_the_cards_three_lines_draw_our_samplers_pictures_where_our_code_is_not(tmp_path: Path):
    settings = tiny(resolution=32, sampling_steps=8, guidance_scale=2.0)
    config = model_config(settings)
    tokenizer = build_tokenizer(config, ["a red circle", "a blue square"])
    model = build_model(config, len(tokenizer), 0).eval()
    with torch.no_grad():  # a fresh transformer ends in zeros and draws nothing
        generator = torch.Generator().manual_seed(0)
        for parameter in model.transformer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    trained = Trained(model, tokenizer, settings)
    folder = export_pipeline(trained, tmp_path / "folder")
    subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(folder)],
        check=True, cwd=tmp_path, env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )  # fmt: skip
    drawn = np.load(folder / "drawn.npy").astype(int)
    assert drawn.shape == (2, 256, 256, 3)
    prompt = ["a red circle"]
    stock = generate(trained, prompt, seed=5, steps=20, guidance_scale=4.5)[0]
    own = generate(trained, prompt, seed=5)[0]
    assert own.std() > 10  # a picture, not a plain grey
    assert np.abs(drawn - drawn[:, ::8, ::8].repeat(8, 1).repeat(8, 2)).max() == 0
    # The scheduler rounds timesteps to whole thousandths; nothing else differs.
    assert np.abs(drawn[0, ::8, ::8] - stock).max() <= 4
    assert np.abs(drawn[1, ::8, ::8] - own).max() <= 4
    assert np.abs(stock.astype(int) - own).max() > 20


def test_the_autoencoder_shows_latents_as_they_are_eight_times_as_large():
    autoencoder = enlarging_autoencoder()
    latents = torch.linspace(-3, 3, 3 * 4 * 4).reshape(1, 3, 4, 4)
    shown = autoencoder.decode(latents / autoencoder.config.scaling_factor).sample
    enlarged = latents.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(shown, enlarged, atol=2e-5, rtol=0)
