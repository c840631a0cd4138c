"""`caplab bench captioner-fit`: DALL-E 3's captioner recipe on the world, measured exactly.

Pairs are made, `caplab captioner fit` runs as a user's command, and every captioner that it leaves,
worse checkpoints too, captions the same held-out scenes through the engine of `caplab recaption`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from pipelines.bench.figures import Figure
from pipelines.bench.processes import run_measured
from pipelines.world.captioner_pairs import clean_scenes, write_clean_pairs, write_noisy_pairs
from pipelines.world.score_captioner import captioner_scores, held_out_files, written_by

GOAL = 0.95
GOAL_MINUTES = 25.0
HELD_OUT_SEED = 5

SETTINGS: dict[str, Any] = {
    "batch_size": 64,
    "vocabulary": 512,
    "pretrain_epochs": 1.0,
    "epochs": 15.0,
    "augment": 1.0,
    "weight_decay": 0.1,
    "keep": "last",
    "checkpoints": [0.05, 0.15, 0.4],
}
"""What differs from the defaults of `caplab captioner fit`: a captioner from nothing, on a CPU."""


def captioner_fit_figures(
    out: Path | None,
    pairs: int,
    noisy: int,
    held_out: int,
    seed: int,
    threads: int,
    config: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Figure]:
    """Fit on `pairs` pictures after `noisy` alt texts, and score on `held_out` scenes.

    Args:
        noisy: 0 leaves pre-training out.
        config: YAML of fit settings on top of SETTINGS.
    """
    root = out or Path(tempfile.mkdtemp(prefix="caplab-bench-"))
    began = time.process_time()
    clean = write_clean_pairs(root / "pairs.parquet", pairs, seed)
    settings = dict(SETTINGS, seed=seed, threads=threads, precision=_precision())
    if noisy:
        settings["pretrain"] = str(write_noisy_pairs(root / "alt.parquet", noisy, seed))
    if config is not None:
        settings |= yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    (root / "fit.yaml").write_text(yaml.safe_dump(settings))
    making = time.process_time() - began

    run = root / "captioner"
    command = [sys.executable, "-m", "pipelines.cli", "captioner", "fit", str(clean)]
    command += ["--out", str(run), "--config", str(root / "fit.yaml")]
    say(" ".join(command))
    cost = run_measured(command)
    say(cost.output.rstrip().splitlines()[-1])

    began = time.process_time()
    torch.set_num_threads(threads)
    scenes, pictures = held_out_files(held_out, HELD_OUT_SEED, clean_scenes(pairs, seed))
    figures = []
    for name in settings.get("kinds", ("short", "descriptive")):
        checkpoints = (run / "checkpoints").glob(f"{name}-*")
        folders = sorted(checkpoints, key=lambda folder: float(folder.name.rpartition("-")[2]))
        for folder in (*folders, run / name):
            captions = written_by(folder, name, pictures)
            scores = captioner_scores(name, captions, scenes)
            record = json.loads((folder / "held_out.json").read_text())
            scores["held_out_loss"] = record["loss"]
            # The point is the finished descriptive captioner; the rest is its dose-response.
            final = folder == run / "descriptive"
            figures += [
                Figure(
                    f"captioner_fit/{folder.name}/{figure}",
                    round(value, 4),
                    "nats/token" if figure == "held_out_loss" else "share",
                    goal=GOAL if final and figure in ("precision", "recall") else None,
                    better="higher",
                )
                for figure, value in scores.items()
            ]
            say(f"{folder.name}: {scores}; {captions[0]!r}")
    scoring = time.process_time() - began
    minutes = {"pairs": making, "fit": cost.cpu_seconds, "held_out_captions": scoring}
    figures += [
        Figure(f"captioner_fit/{name}/cpu", round(seconds / 60, 2), "min")
        for name, seconds in minutes.items()
    ]
    total = round(sum(minutes.values()) / 60, 2)
    return [*figures, Figure("captioner_fit/total/cpu", total, "min", goal=GOAL_MINUTES)]


def _precision() -> str:
    """bf16 where the CPU computes in it (1.5 times faster here), fp32 where it would be
    emulated."""
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has else "fp32"
