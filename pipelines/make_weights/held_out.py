"""Figures of the small models on held-out scenes, through the roads by which users load them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from pipelines.make_weights.examples import (
    GOOD_SCORE,
    UGLY_SCORE,
    Pictures,
    corrupted,
    stored_pictures,
)
from pipelines.world.facts import contradicts, facts
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.writers import write_alt, write_descriptive, write_short

Scores = NDArray[np.floating]


def area_under_roc(positive: Scores, negative: Scores) -> float:
    """Chance that a positive scores above a negative, ties half (Mann-Whitney). O(n log n)."""
    both = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = rank[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def load_clip(directory: Path) -> tuple[Any, Any, Any]:
    """Model, preprocess and tokenizer, as open_clip loads any folder of this layout."""
    import open_clip

    name = f"local-dir:{directory}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


@torch.no_grad()
def embed_images(model: Any, preprocess: Any, pixels: NDArray[np.uint8]) -> Tensor:
    """L2-normalised float32 (N, D) of uint8 pictures."""
    parts = []
    for start in range(0, len(pixels), 256):
        batch = [preprocess(Image.fromarray(p)) for p in pixels[start : start + 256]]
        parts.append(F.normalize(model.encode_image(torch.stack(batch)).float(), dim=-1))
    return torch.cat(parts)


@torch.no_grad()
def embed_texts(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """L2-normalised float32 (N, D) of texts."""
    parts = [
        F.normalize(model.encode_text(tokenizer(list(texts[k : k + 256]))).float(), dim=-1)
        for k in range(0, len(texts), 256)
    ]
    return torch.cat(parts)


def apply_head(path: Path, embeddings: Tensor) -> Scores:
    """Outputs (N,) of a shipped head on normalised embeddings (N, D)."""
    with safe_open(path, framework="pt") as opened:
        meta = opened.metadata()
        x = embeddings
        layers = len(list(opened.keys())) // 2
        for k in range(layers):
            weight, bias = (
                opened.get_tensor(f"layers.{k}.{n}").float() for n in ("weight", "bias")
            )
            x = x @ weight.T + bias
            if k < layers - 1 and meta["activation"] == "relu":
                x = x.relu()
    x = x[:, 0]
    return np.asarray(x.sigmoid() if meta["output"] == "sigmoid" else x)


def held_out_pictures(n: int, seed: int, **shares: float) -> tuple[list[Scene], Pictures]:
    """Scenes and stored pictures that no training saw (training seeds are under 1,000)."""
    config = WorldConfig.small()
    scenes = sample_scenes(config, n, 10_000 + seed)
    return scenes, stored_pictures(scenes, config, 10_000 + seed, mild=False, **shares)


def clip_figures(directory: Path, n: int = 1000, seed: int = 0) -> dict[str, float]:
    """Matched against mismatched texts, by kind of text; clean and spoilt pictures alike.

    descriptive, short, alt: AUC of the right text against another scene's. alt_weak: against texts
    that tell of nothing. one_wrong: share of descriptive captions that beat their copy with one
    attribute wrong (chance 0.5). recall_at_1: right descriptive caption first among 64.
    """
    config = WorldConfig.small()
    scenes, pictures = held_out_pictures(n, seed, ugly=0.05, unsafe=0.03)
    model, preprocess, tokenizer = load_clip(directory)
    image = embed_images(model, preprocess, pictures.pixels)

    def similarity(texts: Sequence[str]) -> Scores:
        return np.asarray((image * embed_texts(model, tokenizer, texts)).sum(-1))

    descriptive, short = write_descriptive(scenes, seed), write_short(scenes, seed)
    alt = [t.text for t in write_alt(scenes, seed, {"good": 0.75, "partial": 0.25})]
    wrong = [t.text for t in write_alt(scenes, seed, {"wrong": 1.0})]
    weak_kinds = {"boilerplate": 0.4, "filename": 0.4, "empty": 0.2}
    weak = [t.text for t in write_alt(scenes, seed, weak_kinds)]  # type: ignore[arg-type]
    other = short[1:] + short[:1]
    differs = np.array([contradicts(facts(t), s) for t, s in zip(other, scenes, strict=True)])
    right = similarity(descriptive)
    near = similarity(write_descriptive(corrupted(scenes, config, seed), seed))
    texts = embed_texts(model, tokenizer, descriptive)
    groups = [slice(k, k + 64) for k in range(0, n - 63, 64)]
    first = [(image[g] @ texts[g].T).argmax(1) == torch.arange(64) for g in groups]
    return {
        "clip_auc_descriptive": area_under_roc(
            right, similarity(descriptive[1:] + descriptive[:1])
        ),
        "clip_auc_short": area_under_roc(similarity(short), similarity(other)[differs]),
        "clip_auc_alt": area_under_roc(similarity(alt), similarity(wrong)),
        "clip_auc_alt_weak": area_under_roc(similarity(alt), similarity(weak)),
        "clip_one_wrong": float(np.mean(right > near)),
        "clip_recall_at_1": float(torch.cat(first).float().mean()),
    }


def head_figures(
    clip: Path, aesthetic: Path, nsfw: Path, n: int = 1000, seed: int = 1
) -> dict[str, float]:
    """AUC of both heads on held-out pictures, a third of them spoilt and a third marked."""
    _, pictures = held_out_pictures(n, seed, ugly=0.33, unsafe=0.33)
    model, preprocess, _ = load_clip(clip)
    image = embed_images(model, preprocess, pictures.pixels)
    score, chance = apply_head(aesthetic, image), apply_head(nsfw, image)
    good = pictures.spoiler == ""
    middle = (GOOD_SCORE + UGLY_SCORE) / 2
    return {
        "aesthetic_auc": area_under_roc(score[good], score[~good]),
        "aesthetic_right_at_middle": float(np.mean((score > middle) == good)),
        "nsfw_auc": area_under_roc(chance[pictures.unsafe], chance[~pictures.unsafe]),
        "nsfw_right_at_half": float(np.mean((chance > 0.5) == pictures.unsafe)),
    }
