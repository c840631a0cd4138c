"""Presets at a few thousand parameters, on a small dataset: what the whole-road tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from curate.store.dataset import Dataset
from tests.train import tiny_families as families
from tests.train.data.small_dataset import make_dataset
from train.assemble import load_trained
from train.data.cache import Precomputed, precompute
from train.data.index import build_index
from train.data.loader import TrainingData, open_data
from train.latents import build_latents
from train.model import Trained
from train.run import RunSummary, train
from train.settings import TrainSettings, model_config
from train.text import build_text

BLEND = {"descriptive": 0.5, "short": 0.5}
SIZES = ((32, 32), (48, 32), (32, 48))

TINY_RUN: dict[str, Any] = {
    "steps": 5,
    "batch_size": 4,
    "captions": BLEND,
    # Far enough in a few steps that a picture shows it.
    "adamw_learning_rate": 0.01,
    "warmup_steps": 0,
    "ema_decay": 0.5,
    "bucket_step": 8,
    "validation_share": 0.2,
    "validation_samples": 2,
    "validate_every": 0,
    "grid_size": 2,
    "grid_every": 0,
    "sampling_steps": 2,
    "checkpoint_every": 2,
    "log_every": 1,
    "device": "cpu",
    "precision": "fp32",
}
"""Over a preset's own numbers; what it trains, and how, stays."""

_UNET = {
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 4,
}
_WORDS = {
    "kind": "words",
    "trainable": True,
    "masked": True,
    "tokens": 12,
    "options": {"width": 32, "depth": 1, "heads": 2, "feed_forward": 32, "vocabulary_size": 64},
}
_SMALL = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}


@dataclass(frozen=True)
class Road:
    """What makes a preset tiny."""

    backbone: dict[str, Any]
    """Arguments of the network's class over the preset's."""
    source: Callable[[], Any] | None = None
    """The published pipeline that the preset names, at a few thousand random parameters."""
    model: dict[str, Any] = field(default_factory=dict)


PRESETS = {
    "sd15": Road(_UNET, families.stable_diffusion),
    "sd2": Road(_UNET, families.stable_diffusion),
    "sdxl": Road(
        {**_UNET, "transformer_layers_per_block": [1, 1], "addition_time_embed_dim": 8},
        families.stable_diffusion_xl,
    ),
    "sd3": Road({**_SMALL, "pos_embed_max_size": 16}, families.stable_diffusion_3),
    "flux": Road(
        {**_SMALL, "num_single_layers": 1, "attention_head_dim": 16},
        lambda: families.flux(guidance_embeds=True),
    ),
    "pixart": Road(_SMALL, families.pixart),
    "sana": Road(
        {**_SMALL, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8}, families.sana
    ),
    "dit-33m": Road(_SMALL, model={"text": [_WORDS]}),
    "dit-130m": Road(_SMALL, families.pixart),
    "world-small": Road(_SMALL),
}


def make_data(folder: Path) -> Dataset:
    """24 pictures of three shapes in two shards, selection "all"."""
    return make_dataset(folder, count=24, sizes=SIZES)


def preset_file(name: str, folder: Path, source: Path | None, **train: Any) -> Path:
    """A YAML file with the preset as its base, and what makes it tiny."""
    road = PRESETS[name]
    model = {"resolution": families.SIDE, "backbone": {"config": road.backbone}, **road.model}
    if source is not None:
        model["source"] = str(source)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"base": name, "model": model, "train": {**TINY_RUN, **train}}))
    return file


def frozen_parts(dataset: Dataset, settings: TrainSettings, selection: str = "all") -> Any:
    """The parts of a model that features and latents come from."""
    config = model_config(settings)
    both = build_index(dataset, settings, config, selection)
    text = build_text(config, [text for index in both for text in index.texts()])
    return SimpleNamespace(text=text, latents=build_latents(config))


def write_caches(dataset: Dataset, settings: TrainSettings) -> Precomputed:
    """As `caplab train --precompute` does."""
    parts, config = frozen_parts(dataset, settings), model_config(settings)
    return precompute(dataset, settings, config, parts, "all", say=lambda sentence: None)


def opened(dataset: Dataset, settings: TrainSettings, selection: str = "all") -> TrainingData:
    """What a run of these settings reads."""
    parts, config = frozen_parts(dataset, settings, selection), model_config(settings)
    return open_data(dataset, settings, config, parts.text, selection, latents=parts.latents)


def published(name: str, folder: Path) -> Path | None:
    """The tiny pipeline that a preset names, in a folder below `folder`; made once."""
    make = PRESETS[name].source
    if make is None:
        return None
    place = folder / f"published-{name}"
    if not place.exists():
        torch.manual_seed(0)
        families.saved(make(), place)
    return place


# ---- runs and what they leave -------------------------------------------------------------------


class Stopped(BaseException):
    """As a signal ends a run."""


def stop_after(step: int) -> Callable[..., None]:
    """An `on_step` that ends a run there."""

    def on_step(done: int, *_: Any) -> None:
        if done == step:
            raise Stopped

    return on_step


def run(dataset: Dataset, settings: TrainSettings, out: Path, **more: Any) -> RunSummary:
    """A whole run, silent."""
    more = {"on_step": lambda *_: None, "say": lambda sentence: None, **more}
    return train(dataset, settings, out, **{"selection": "all", **more})


def exactly(run: Path) -> Trained:
    """A run's model in fp32, as diffusers computes; by itself it takes bf16 where a CPU has it."""
    return load_trained(run, "cpu", "fp32")


def losses(run: Path) -> list[float]:
    """Of every step."""
    found: list[float] = pq.read_table(run / "metrics.parquet").column("loss").to_pylist()
    return found


def checkpoints(run: Path) -> list[int]:
    """Their steps."""
    return sorted(int(path.stem) for path in run.glob("checkpoints/*.safetensors"))


def tiles(grid: Path, count: int) -> NDArray[np.uint8]:
    """The pictures (N, 32, 32, 3) of a grid in one row, where each is enlarged three times."""
    with Image.open(grid) as image:
        pixels = np.asarray(image)[4:100]
    return np.stack([pixels[1::3, 4 + 100 * n :][:, 1:96:3] for n in range(count)])


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """The largest difference of a channel, of 255; a pixel may be drawn as a square of 8."""
    if other.shape[0] == 8 * one.shape[0]:
        other = other[4::8, 4::8]
    return int(np.abs(one.astype(int) - other).max())
