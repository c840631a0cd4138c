"""`python -m pipelines.bench.ablation.on_gpu OUT`: three arms by three seeds at 128 px.

Makes pictures of the world with their alt texts and with error-free captions, times a step, and
takes as many steps a run as LIMIT seconds hold. Figures are JSON lines; the study's page and tables
lie in OUT/docs. With CAPLAB_BENCH_TINY set the same code runs small, wherever it is.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from curate.base.settings import load_settings
from curate.store.dataset import Dataset
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.plan import timed
from pipelines.ablation.run import ablate
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import prepare
from pipelines.bench.ablation.result_pages import Finished, write_page
from pipelines.bench.ablation.study_data import write_truth_captions
from pipelines.bench.ablation.study_files import study_file
from pipelines.bench.common.figures import Figures, render
from pipelines.bench.train.pictures import repeated
from pipelines.world.render import render as drawn
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.writers import write_alt

TINY = bool(os.environ.get("CAPLAB_BENCH_TINY"))
LIMIT = 540.0
"""Seconds of all, from the first line on."""
SPARE = 75.0
"""Of them for starting the processes, tables, and what is slower side by side than alone."""
GOAL = 3.0
"""Points: half of the declared contrasts' intervals."""
SIDE_BY_SIDE = 3  # a run of this size leaves half of a large GPU idle
_COUNT, _SIDE = (96, 32) if TINY else (12_000, 128)


def world_at_128(out: Path) -> Figures:
    """Run the study, and say how near it came to LIMIT and GOAL."""
    began = time.monotonic()
    dataset = _data(out)
    settings = study_on_gpu(out, steps=100)
    study = prepare(dataset.directory, settings, out / "gpu")
    pace = timed(study, settings)
    pictures = len(study.runs) * study.asked.rows.num_rows
    made = time.monotonic() - began
    left = LIMIT - SPARE - made - pictures * pace.drawn - pictures * pace.judged / SIDE_BY_SIDE
    steps = 8 if TINY else max(100, int(left / pace.step / len(study.runs)) // 50 * 50)
    ablate(dataset.directory, out / "gpu", study_on_gpu(out, steps))
    seconds = time.monotonic() - began
    write_page(out / "docs", Finished.read(out, "gpu"), seconds)
    figures = Figures("ablation/gpu")
    figures.add("made_and_timed", made, "s")
    figures.add("step_alone", pace.step, "s")
    figures.add("steps_a_run", steps, "")
    figures.add("pictures_drawn", pictures, "")
    figures.add("wall", seconds, "s", at_most=LIMIT)
    for row in pq.read_table(out / "gpu" / "results" / "contrasts.parquet").to_pylist():
        if row["declared"] and row["low"] is not None:
            name = f"{row['arm_a']}-{row['arm_b']}"
            points = metric_of(row["metric"]).factor
            figures.add(f"{name}/difference", points * row["difference"], "points")
            half = points * (row["high"] - row["low"]) / 2
            figures.add(f"{name}/half_width", half, "points", at_most=GOAL)
    return figures


def _data(out: Path) -> Dataset:
    """Pictures of seen pairs, with the alt texts of a filtered web and with the truth in words."""
    config = WorldConfig.small()
    scenes = sample_scenes(config, _COUNT, 0, "seen")
    texts = [text.text for text in write_alt(scenes, 1, {"good": 0.75, "partial": 0.25})]
    pictures = [
        _jpeg(pixels)
        for start in range(0, _COUNT, 1000)
        for pixels in drawn(scenes[start : start + 1000], config, _SIDE)
    ]
    dataset = repeated(out / "dataset", _COUNT, pictures, (_SIDE, _SIDE), texts.__getitem__, "jpg")
    truth = out / "truth.parquet"
    pq.write_table(pa.table({"scene": [scene.to_json() for scene in scenes]}), truth)
    write_truth_captions(dataset, truth, "descriptive", "captioner")
    return dataset


def study_on_gpu(out: Path, steps: int) -> AblateSettings:
    """The declared study of studies/gpu.yaml over the dataset and the truth in OUT."""
    declared: dict[str, Any] = yaml.safe_load(study_file("gpu").read_text(encoding="utf-8"))
    prompts = {**declared["prompts"], "exclude_scenes": str(out / "truth.parquet")}
    train: dict[str, Any] = {
        "model": str(study_file("gpu-model")),
        "steps": steps,
        "warmup_steps": min(100, steps // 2),
        "ema_decay": 0.99,
        "validate_every": 0,
        "validation_samples": 0,
        "grid_every": 0,
        "grid_size": 0,
        "checkpoint_every": 0,
        "checkpoint_minutes": 0.0,
        "loader_workers": 0 if TINY else 4,
    }
    if TINY:
        train |= {"model": "world-small", "batch_size": 8}
        declared |= {"noises": 1}
        prompts["scenes"] = 4
    more = {"train": train, "prompts": prompts, "workers": SIDE_BY_SIDE, "runner": "local"}
    return load_settings(AblateSettings, None, declared | more)


def _jpeg(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92)
    return stream.getvalue()


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(render(world_at_128(Path(sys.argv[1]).absolute()), as_json=True))
