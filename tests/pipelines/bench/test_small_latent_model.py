"""A pipeline of our own making: what stands in its folder, and that a preset can take it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from curate.base.errors import ConfigError
from pipelines.bench.train import small_latent_model as made
from train.assemble import build_model
from train.settings import TrainSettings, model_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures of one colour each, with texts, and one file that is no picture."""
    place = tmp_path_factory.mktemp("pairs")
    lines = []
    for number in range(40):
        colour = (number * 6, 255 - number * 6, 128)
        Image.new("RGB", (100, 90), colour).save(place / f"{number}.png")
        lines.append({"image": f"{number}.png", "alt": f"colour number {number}"})
    (place / "broken.png").write_bytes(b"no picture")
    lines.append({"image": "broken.png", "alt": None})
    text = "\n".join(json.dumps(line) for line in lines)
    (place / "captions.jsonl").write_text(text, "utf-8")
    return place


def test_pairs_are_read_without_what_does_not_decode(folder):
    pictures, held_out, texts = made.read_pairs([folder])
    assert pictures.shape == (40, made.ROOM, made.ROOM, 3)
    assert (pictures[7] == (42, 213, 128)).all()
    assert 0 < held_out.sum() < 20
    assert len(texts) == 40


def test_a_folder_without_captions_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no captions\.jsonl"):
        made.read_pairs([tmp_path])


def test_the_autoencoder_learns_and_its_latents_have_unit_variance(folder):
    pictures, _, _ = made.read_pairs([folder])
    vae = made.small_autoencoder(0)
    before, _ = made.measure(vae, pictures, pictures)
    steps = made.train_autoencoder(vae.train(), pictures, 3.0, 0)
    after, restored = made.measure(vae, pictures, pictures)
    assert steps > 1
    assert after > before
    assert restored.shape == (40, made.SIDE, made.SIDE, 3)
    assert restored.dtype == np.uint8
    from train.latents import AutoencoderLatents
    from train.model_settings import LatentsConfig

    latents = AutoencoderLatents(vae, LatentsConfig(kind="autoencoder"), "")
    x = torch.from_numpy(pictures[:, 8:72, 8:72]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert float(latents.encode(x).std()) == pytest.approx(1, abs=1e-3)


def test_a_preset_takes_the_folder_as_its_source(tmp_path):
    made.write_pipeline(made.small_autoencoder(0), ["a red bowl", "soup"], tmp_path / "own", 64, 0)
    preset = tmp_path / "photos.yaml"
    preset.write_text(
        f"base: photo-64\nmodel:\n  source: {tmp_path / 'own'}\n"
        "  latents: {kind: autoencoder}\n  backbone: {config: {patch_size: 2, num_layers: 1}}\n"
    )
    settings = TrainSettings(model=str(preset))
    model = build_model(model_config(settings), settings)
    assert (model.latents.channels, model.latents.factor) == (4, 4)
    assert model.patches(64) == 64
    words = model.text.parts()["tokenizer"].get_vocab()
    assert set(words) == {"<pad>", "</s>", "<unk>", "bowl", "red", "soup"}
    tokens = model.text.tokenize(["a red bowl"])
    x = torch.zeros(1, 4, 16, 16)
    assert model(x, torch.tensor([500.0]), tokens).shape == (1, 4, 16, 16)
