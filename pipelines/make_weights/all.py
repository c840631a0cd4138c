"""Trains all of the world's small models from nothing, measures them, and writes the manifest.

python -m pipelines.make_weights.all --out DIR --seed 100
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from curate.base.files import sha256_file, write_json
from pipelines.make_weights.captioner_pairs import write_clean_pairs
from pipelines.make_weights.examples import stored_pictures
from pipelines.make_weights.held_out import clip_figures, embed_images, head_figures, load_clip
from pipelines.make_weights.score_captioner import captioner_scores, held_out_files, written_by
from pipelines.make_weights.text_encoder import FOLDER, make_text_encoder
from pipelines.make_weights.train_clip import ClipTraining, save_clip, train_clip, training_dtype
from pipelines.make_weights.train_heads import save_head, train_head
from pipelines.world.scene import WorldConfig, sample_scenes
from recaption.fit.run import fit
from recaption.fit.settings import FitSettings

TRAINING_PICTURES, HELD_OUT = 24_000, 1_000
CAPTIONER: dict[str, Any] = {
    "together": True,
    "batch_size": 64,
    "vocabulary": 512,
    "epochs": 2.0,
    "keep": "last",
    "validation_share": 0.01,
    "validations": 5,
}
"""What differs from the defaults of `caplab captioner fit`."""
KINDS = ("short", "descriptive")


def train_demo_weights(
    out_dir: Path | str,
    seed: int = 100,
    clip: ClipTraining | None = None,
    captioner: dict[str, Any] | None = None,
    pictures: int = TRAINING_PICTURES,
    threads: int = 1,
    held_out: int = HELD_OUT,
) -> dict[str, Any]:
    """Write `clip/`, both heads, `captioner/` and `manifest.json` under `out_dir`.

    Same seed, machine type and precision give the same weights. Seeds must stay under 1,000:
    held-out scenes begin above.

    Args:
        captioner: settings of its fit that differ from CAPTIONER.
        pictures: that train CLIP and the captioner; the heads see a quarter as many, fresh ones.
        held_out: pictures that each figure of the manifest rests on.

    Returns:
        The manifest.
    """
    if not 0 <= seed < 1000:
        raise ValueError(f"the seed must lie in 0..999, not {seed}.")
    torch.set_num_threads(threads)
    root, world = Path(out_dir), WorldConfig.small()
    clock = _Clock()

    scenes = sample_scenes(world, pictures, seed)
    mixed = stored_pictures(scenes, world, seed)
    clock.lap("pictures")
    save_clip(train_clip(scenes, mixed, world, seed, clip), root / "clip")
    clock.lap("clip")

    # Fresh pictures: embeddings of those that trained the tower are better than they ought to be.
    fresh = stored_pictures(
        sample_scenes(world, pictures // 4, seed + 1000), world, seed + 1000, 0.35, 0.3
    )
    loaded, preprocess, _ = load_clip(root / "clip")
    image = embed_images(loaded, preprocess, fresh.pixels)
    score = train_head(image, torch.from_numpy(fresh.aesthetic), "score", seed)
    save_head(score, root / "aesthetic_head.safetensors", "score")
    marked = torch.from_numpy(fresh.unsafe.astype(np.float32))
    chance = train_head(image, marked, "sigmoid", seed)
    save_head(chance, root / "nsfw_head.safetensors", "sigmoid")
    clock.lap("heads")

    settings = FitSettings(**{**CAPTIONER, "seed": seed, "threads": threads, **(captioner or {})})
    fit_captioner(root, settings, pictures)
    clock.lap("captioner")
    figures = measure(root, held_out)
    clock.lap("held_out")
    return write_manifest(root, seed, clock.seconds, figures)


def fit_captioner(root: Path, settings: FitSettings, pictures: int) -> None:
    """`captioner/`: a small LLaVA from nothing, as `caplab captioner fit --base new` makes it.

    A killed one is continued by the next call.
    """
    work = root / "captioner.fit"
    pairs = work / "pairs.parquet"
    if not pairs.exists():
        write_clean_pairs(pairs, pictures, settings.seed)
    fit(pairs, work / "run", settings)
    if (root / "captioner").exists():
        shutil.rmtree(root / "captioner")
    os.replace(work / "run" / "together", root / "captioner")
    shutil.rmtree(work)


def measure(root: Path, held_out: int = HELD_OUT) -> dict[str, float]:
    """All held-out figures of the weights in `root`; about 25 CPU seconds."""
    shown, files = held_out_files(held_out * 2 // 5, seed=2)
    said = {
        kind: captioner_scores(kind, written_by(root / "captioner", kind, files), shown)
        for kind in KINDS
    }
    return {
        **clip_figures(root / "clip", held_out),
        **head_figures(
            root / "clip",
            root / "aesthetic_head.safetensors",
            root / "nsfw_head.safetensors",
            held_out,
        ),
        **{f"{kind}_{name}": value for kind in KINDS for name, value in said[kind].items()},
    }


def write_manifest(
    root: Path, seed: int, seconds: dict[str, float], figures: dict[str, float]
) -> dict[str, Any]:
    """Hashes of every file, how they were made, and what they reach."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != "manifest.json")
    manifest = {
        "command": f"python -m pipelines.make_weights.all --out DIR --seed {seed}",
        "seed": seed,
        "precision": str(training_dtype()).removeprefix("torch."),
        "cpu_seconds": {name: round(value, 1) for name, value in seconds.items()},
        "held_out": {name: round(value, 4) for name, value in figures.items()},
        "sha256": {p.relative_to(root).as_posix(): sha256_file(p) for p in files},
        "bytes": sum(p.stat().st_size for p in files),
    }
    write_json(root / "manifest.json", manifest)
    return manifest


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name], self.last = now - self.last, now
        click.echo(f"{name}: {self.seconds[name]:.0f} CPU seconds")


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="For the weights.")
@click.option(
    "--text-out",
    default=FOLDER,
    type=click.Path(path_type=Path),
    help="For the text encoder, which the trainer ships.",
)
@click.option("--seed", default=100, show_default=True, help="0 to 999.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def main(out: Path, text_out: Path, seed: int, threads: int) -> None:
    """Train the small models of the synthetic world from nothing."""
    manifest = train_demo_weights(out, seed, threads=threads)
    text = make_text_encoder(text_out, seed)
    click.echo(json.dumps({**manifest["held_out"], **text["held_out"]}, indent=2))


if __name__ == "__main__":
    main()
