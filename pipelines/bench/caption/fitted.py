"""`caplab bench captioner-fit`: DALL-E 3's captioner recipe on the world, measured exactly.

Pairs are made, `caplab captioner fit` runs as a user's command, and every captioner that it leaves,
worse checkpoints too, captions the same held-out scenes through the engine of `caplab recaption`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from curate.base.progress import tell
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.processes import CAPLAB, run_measured
from pipelines.make_weights.captioner_pairs import (
    clean_scenes,
    write_clean_pairs,
    write_noisy_pairs,
)
from pipelines.make_weights.score_captioner import captioner_scores, held_out_files, written_by

GOAL, GOAL_MINUTES = 0.95, 25.0
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
) -> Figures:
    """Fit on `pairs` pictures after `noisy` alt texts, and score on `held_out` scenes.

    Args:
        noisy: 0 leaves pre-training out.
        config: YAML of fit settings on top of SETTINGS.
    """
    root = work_folder(out)
    began = time.process_time()
    clean = write_clean_pairs(root / "pairs.parquet", pairs, seed)
    # bf16 where the CPU computes in it (1.5 times faster here), fp32 where it would be emulated.
    bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    settings = dict(SETTINGS, seed=seed, threads=threads, precision="bf16" if bf16 else "fp32")
    if noisy:
        settings["pretrain"] = str(write_noisy_pairs(root / "alt.parquet", noisy, seed))
    if config is not None:
        settings |= yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    (root / "fit.yaml").write_text(yaml.safe_dump(settings))
    minutes = {"pairs": time.process_time() - began}

    run = root / "captioner"
    command = [*CAPLAB, "captioner", "fit", clean, "--out", run, "--config", root / "fit.yaml"]
    tell(" ".join(map(str, command)))
    cost = run_measured(command)
    minutes["fit"] = cost.cpu_seconds
    tell(cost.output.rstrip().splitlines()[-1])

    began = time.process_time()
    torch.set_num_threads(threads)
    scenes, pictures = held_out_files(held_out, HELD_OUT_SEED, clean_scenes(pairs, seed))
    figures = Figures("captioner_fit")
    for kind in settings.get("kinds", ("short", "descriptive")):
        checkpoints = (run / "checkpoints").glob(f"{kind}-*")
        folders = sorted(checkpoints, key=lambda folder: float(folder.name.rpartition("-")[2]))
        for folder in (*folders, run / kind):
            captions = written_by(folder, kind, pictures)
            scores = captioner_scores(kind, captions, scenes)
            # The point is the finished descriptive captioner; the rest is its dose-response.
            final = folder == run / "descriptive"
            for name, value in scores.items():
                goal = GOAL if final and name in ("precision", "recall") else None
                figures.add(f"{folder.name}/{name}", value, "share", at_least=goal)
            loss = json.loads((folder / "held_out.json").read_text())["loss"]
            figures.add(f"{folder.name}/held_out_loss", loss, "nats/token")
            tell(f"{folder.name}: {scores}; {captions[0]!r}")
    minutes["held_out_captions"] = time.process_time() - began
    for name, seconds in minutes.items():
        figures.add(f"{name}/cpu", seconds / 60, "min")
    figures.add("total/cpu", sum(minutes.values()) / 60, "min", at_most=GOAL_MINUTES)
    return figures
