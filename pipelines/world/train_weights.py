"""Trains all of the world's small models from nothing, measures them, and writes the manifest."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.world.examples import stored_pictures
from pipelines.world.held_out import (
    captioner_figures,
    clip_figures,
    embed_images,
    head_figures,
    load_clip,
)
from pipelines.world.optimize import training_dtype
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.train_captioner import CaptionerTraining, save_captioner, train_captioner
from pipelines.world.train_clip import ClipTraining, save_clip, train_clip
from pipelines.world.train_heads import save_head, train_head
from pipelines.world.weights import CAPTION_PROMPTS, MAX_NEW_TOKENS

TRAINING_PICTURES, HEAD_PICTURES = 24_000, 6_000


def train_demo_weights(
    out_dir: Path | str,
    seed: int = 100,
    clip: ClipTraining | None = None,
    captioner: CaptionerTraining | None = None,
    pictures: int = TRAINING_PICTURES,
    threads: int = 1,
) -> dict[str, Any]:
    """Write `clip/`, both heads, `captioner/` and `manifest.json` under `out_dir`.

    Same seed, machine type and precision give the same weights. About 15 CPU minutes on one
    core with the defaults. Seeds must stay under 1,000: held-out scenes begin above.

    Returns:
        The manifest.
    """
    if not 0 <= seed < 1000:
        raise ValueError(f"the seed must lie in 0..999, not {seed}.")
    torch.set_num_threads(threads)
    root, world = Path(out_dir), WorldConfig.small()
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)

    scenes = sample_scenes(world, pictures, seed)
    mixed = stored_pictures(scenes, world, seed)
    clock.lap("pictures")
    model = train_clip(scenes, mixed, world, seed, clip)
    save_clip(model, root / "clip")
    clock.lap("clip")

    # Fresh pictures: embeddings of those that trained the tower are better than they ought to be.
    fresh = stored_pictures(
        sample_scenes(world, HEAD_PICTURES, seed + 1000), world, seed + 1000, 0.35, 0.3
    )
    loaded, preprocess, _ = load_clip(root / "clip")
    image = embed_images(loaded, preprocess, fresh.pixels)
    target = torch.from_numpy(fresh.aesthetic)
    save_head(
        train_head(image, target, "score", seed), root / "aesthetic_head.safetensors", "score"
    )
    marked = torch.from_numpy(fresh.unsafe.astype(np.float32))
    save_head(train_head(image, marked, "sigmoid", seed), root / "nsfw_head.safetensors", "sigmoid")
    clock.lap("heads")

    save_captioner(train_captioner(scenes, mixed, seed, captioner), root / "captioner")
    clock.lap("captioner")
    figures = measure(root)
    clock.lap("held_out")
    return write_manifest(root, seed, seconds, figures)


def measure(root: Path) -> dict[str, float]:
    """All held-out figures of the weights in `root`; about 25 CPU seconds."""
    return {
        **clip_figures(root / "clip"),
        **head_figures(
            root / "clip",
            root / "aesthetic_head.safetensors",
            root / "nsfw_head.safetensors",
        ),
        **captioner_figures(root / "captioner", CAPTION_PROMPTS, MAX_NEW_TOKENS),
    }


def write_manifest(
    root: Path, seed: int, seconds: dict[str, float], figures: dict[str, float]
) -> dict[str, Any]:
    """Hashes of every file, how they were made, and what they reach."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "manifest.json")
    manifest = {
        "command": f"python -m pipelines.world.weights --out DIR --seed {seed}",
        "seed": seed,
        "precision": str(training_dtype()).removeprefix("torch."),
        "cpu_seconds": {name: round(value, 1) for name, value in seconds.items()},
        "held_out": {name: round(value, 4) for name, value in figures.items()},
        "sha256": {
            p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
        },
        "bytes": sum(p.stat().st_size for p in files),
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name], self.last = now - self.last, now
        print(f"{name}: {self.seconds[name]:.0f} CPU seconds", flush=True)
