"""Tiny models of the published architectures on our own road, beside open_clip's and SigLIP's."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curate.scoring.scorers.clip import Clip, ClipModel
from curate.scoring.scorers.head_source import find_head
from curate.scoring.scorers.heads import Head
from tests.curate.scoring.scorers.tiny_published import PUBLISHED, build
from tests.curate.tiny import drawn

TEXTS = ["A red fox.", "two cats on the mat", "a"]
TOKENS = {"siglip": 64, "siglip2": 64, "dfn": 77, "metaclip2": 77, "pe-core": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: build(family, tmp_path_factory.mktemp(family)) for family in PUBLISHED}


@pytest.mark.parametrize("family", PUBLISHED)
def test_scores_are_those_of_open_clips_own_road(family: str, folders: dict[str, Path]) -> None:
    import open_clip

    source = f"local-dir:{folders[family]}"
    model, _, transform = open_clip.create_model_and_transforms(source)
    tokenize = open_clip.get_tokenizer(source)
    # 32 x 32, so that no resize stands between: theirs works on the picture, ours on the array.
    pictures = np.stack([drawn(seed, 32, 32) for seed in range(3)])
    with torch.inference_mode():
        from PIL import Image

        seen = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
        image = model.eval().encode_image(seen, normalize=True).numpy()
        text = model.encode_text(tokenize(TEXTS), normalize=True).numpy()
    clip = Clip(source)
    scores = clip.score({"picture": pictures, "alt_text": TEXTS})
    assert scores["image_embedding"] == pytest.approx(image, abs=1e-3)
    assert scores["text_embedding"] == pytest.approx(text, abs=1e-3)
    assert scores["clip_similarity"] == pytest.approx((image * text).sum(1), abs=1e-3)
    assert clip.model.context_length == TOKENS[family]
    long = "a red fox " * 60
    [cut] = clip.model.read_texts([long])[1]
    [whole] = clip.model.read_texts(["a red fox " * 3])[1]
    assert cut > 0 == whole


def test_the_padding_of_siglips_texts_is_seen_and_that_of_the_others_is_not(
    folders: dict[str, Path],
) -> None:
    for family, folder in folders.items():
        model = ClipModel.load(f"local-dir:{folder}")
        tokens = model._tokenize(["a red fox"])
        end = {"siglip": 0, "siglip2": 1, "metaclip2": 2}.get(family, 49407)
        behind = (tokens[0] == end).nonzero()[0, 0] + 1
        other = tokens.clone()
        other[0, behind:] = 5
        with torch.inference_mode():
            one, two = (
                nn.functional.normalize(model.model.encode_text(t)) for t in (tokens, other)
            )
        changed = float((one - two).abs().max()) > 1e-3
        assert changed == family.startswith("siglip"), family


def test_a_tokenizer_of_ones_own_cleans_texts_as_the_model_asks(folders: dict[str, Path]) -> None:
    folder = folders["siglip2"]
    own = ClipModel.load(f"local-dir:{folder}", tokenizer=str(folder))
    assert own.context_length == 64
    assert np.array_equal(*own.embed_texts(["A red, red fox!", "a red red fox"]))


def test_aesthetic_v25_is_what_its_author_computes(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """SigLIP as transformers has it, its pooled output normalised, and five linear layers."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    clip = ClipModel.load(f"local-dir:{folders['siglip']}")
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    tower = SiglipVisionModel(config).eval()
    tower.load_state_dict(as_transformers(clip.model.visual.trunk.state_dict()), strict=True)
    torch.manual_seed(3)
    widths = [32, 1024, 128, 64, 16, 1]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Dropout(0.5)]
    theirs = nn.ModuleDict({"scoring_head": nn.Sequential(*layers[:-1])}).eval()
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(2)
    file = tmp_path / "aesthetic_predictor_v2_5.pth"
    torch.save(theirs.state_dict(), file)
    pictures = np.stack([drawn(seed, 32, 32) for seed in range(6)])
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        pooled = tower(pixel_values=pixels).pooler_output
        expected = theirs["scoring_head"](nn.functional.normalize(pooled))[:, 0].numpy()

    head = Head.load(find_head(str(file), [file.name]))
    assert len(head.weights) == 1, "five layers without an activation are one"
    ours = head(clip.embed_pictures(pictures))
    # timm computes GELU as it is, transformers by a tanh; embeddings are rounded to float16.
    assert ours == pytest.approx(expected, abs=2e-3)
    assert np.ptp(ours) > 0.1, "the pictures should matter"


def as_transformers(timm: dict[str, Any]) -> dict[str, Any]:
    """A SigLIP tower's weights under the names that transformers gives them."""
    names = {
        "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm",
        "attn_pool.norm": "head.layernorm", "attn_pool.mlp.fc1": "head.mlp.fc1",
        "attn_pool.mlp.fc2": "head.mlp.fc2", "attn_pool.proj": "head.attention.out_proj",
    }  # fmt: skip
    parts = {
        "norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
        "attn.proj": "self_attn.out_proj",
    }  # fmt: skip
    out = {
        "embeddings.position_embedding.weight": timm["pos_embed"][0],
        "head.probe": timm["attn_pool.latent"],
    }
    for kind in ("weight", "bias"):
        for ours, theirs in names.items():
            out[f"{theirs}.{kind}"] = timm[f"{ours}.{kind}"]
        pooling = (timm[f"attn_pool.q.{kind}"], timm[f"attn_pool.kv.{kind}"])
        out[f"head.attention.in_proj_{kind}"] = torch.cat(pooling)
        for block in range(2):
            layer = f"encoder.layers.{block}"
            for ours, theirs in parts.items():
                out[f"{layer}.{theirs}.{kind}"] = timm[f"blocks.{block}.{ours}.{kind}"]
            three = timm[f"blocks.{block}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip("qkv", three, strict=True):
                out[f"{layer}.self_attn.{name}_proj.{kind}"] = part
    return out
