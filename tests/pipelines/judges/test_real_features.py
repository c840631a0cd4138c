"""Networks whose features are compared: real architectures, random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.bench.ablation.peer_distances import seeded_inception, seeded_picture
from pipelines.judges.real.features import Dino, Inception
from pipelines.judges.real.inception import clean_resize, find_weights
from pipelines.judges.real.settings import RealOptions

PEERS = json.loads(Path(__file__).with_name("peer_distances.json").read_text())


def options(**given):
    given = {"inception": "none given"} | {
        n: v if n == "allow_pickle" else str(v) for n, v in given.items()
    }
    return load_settings(RealOptions, overrides={"metrics": "vendi"} | given)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPLAB_CACHE", str(tmp_path / "cache"))


def test_inception_gives_torch_fidelity_s_features_and_clean_fid_s_pictures(tmp_path):
    path = tmp_path / "inception.safetensors"
    save_file(seeded_inception(), path)
    features = Inception(options(inception=path), "cpu")(seeded_picture()[None])
    assert features.shape == (1, 2048)
    assert features[0, :24] == pytest.approx(PEERS["inception"], rel=1e-3, abs=1e-4)
    resized = clean_resize(seeded_picture(64))
    assert resized.shape == (3, 299, 299)
    assert resized[0, 0, :24] == pytest.approx(PEERS["clean_resize"], abs=1e-3)


def test_a_pickle_is_converted_only_where_it_is_named(tmp_path):
    pickle = tmp_path / "weights.pth"
    torch.save({"fc.bias": torch.zeros(1008)}, pickle)
    with pytest.raises(ConfigError, match="is a pickle"):
        Inception(options(inception=pickle), "cpu")
    converted = find_weights(str(pickle), ["weights.pth"])
    assert converted.suffix == ".safetensors"
    with pytest.raises(ConfigError, match="holds no Inception v3"):
        Inception(options(inception=pickle, allow_pickle=["weights.pth"]), "cpu")


def tiny_timm(folder: Path, name: str) -> None:
    small = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    # As published files are: with another size of picture than the judge's.
    model = timm.create_model(name, num_classes=0, img_size=112, **small)
    # In a new model the token is too short for the last norm, and hardly any block adds to it.
    torch.nn.init.normal_(model.cls_token)
    for name, weight in model.named_parameters():
        if "gamma" in name:
            torch.nn.init.ones_(weight)
    save_for_hf(model, folder, model_args=small | {"img_size": 112}, safe_serialization=True)


def tiny_transformers(folder: Path, version: int) -> None:
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 48, "image_size": 112}
    model = (
        Dinov2Model(Dinov2Config(**small, patch_size=14))
        if version == 2
        else DINOv3ViTModel(DINOv3ViTConfig(**small, patch_size=16, num_register_tokens=2))
    )
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "which"),
    [
        (tiny_timm, "vit_small_patch14_reg4_dinov2.lvd142m"),
        (tiny_timm, "vit_small_patch16_dinov3.lvd1689m"),
        (tiny_transformers, 2),
        (tiny_transformers, 3),
    ],
)
def test_dino_of_either_library_gives_its_class_token(tmp_path, make, which):
    make(tmp_path, which)
    model = Dino(options(dino=tmp_path), "cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    features = model(pictures)
    assert features.shape == (3, model.width) == (3, 24)
    # Behind the last norm each row has mean 0 and variance 1, as its scale and shift are 1 and 0.
    assert features.mean(axis=1) == pytest.approx(0, abs=1e-4)
    assert features.std(axis=1) == pytest.approx(1, abs=0.1)
    assert len(np.unique(features, axis=0)) == 3
    (weights,) = model.mark["dino"]
    assert weights == "model.safetensors"


def test_what_is_no_dino_model_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"no readable config\.json"):
        Dino(options(dino=tmp_path), "cpu")
    (tmp_path / "config.json").write_text('{"architecture": "no_such_model"}')
    with pytest.raises(ConfigError, match=r"holds no \.safetensors"):
        Dino(options(dino=tmp_path), "cpu")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="does not load"):
        Dino(options(dino=tmp_path), "cpu")
