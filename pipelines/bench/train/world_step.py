"""Pictures a second of the world's model on one thread, each switch on and off.

    python -m pipelines.bench.train.world_step

Every line is one short run of `train_loop` from the same weights on the same pictures, and prints
its speed and its last loss; the first is the base and the others differ from it as they say.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from curate.store.dataset import Dataset
from pipelines.bench.train.pictures import KIND, SELECTION, repeated
from pipelines.world.render import render
from pipelines.world.scene import WorldConfig, sample_arrays, scenes_from_arrays
from pipelines.world.writers import write_descriptive
from train.assemble import build_model
from train.data.index import build_index
from train.data.loader import open_data
from train.loop import train_loop
from train.model import TextToImage
from train.settings import TrainSettings, model_config

ROWS, STEPS, WARM_UP, SIDE = 2000, 24, 8, 32
SWITCHES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32, whole window": {"padded": True},
    "fp32, muon_steps 3": {"muon_steps": 3},
    "fp32, AdamW alone": {"muon_learning_rate": 0.0},
    "bf16": {"precision": "bf16"},
    "bf16, whole window": {"precision": "bf16", "padded": True},
    "bf16, muon_steps 3": {"precision": "bf16", "muon_steps": 3},
    "bf16, batch 128": {"precision": "bf16", "batch_size": 128},
    "bf16, batch 256": {"precision": "bf16", "batch_size": 256},
}


class Padded(TextToImage):
    """Reads texts padded to the whole window."""

    def without_padding(self, text: Any) -> Any:
        """As they are."""
        return text


def world(folder: Path) -> Dataset:
    """Scenes of the world with their descriptive captions."""
    config = WorldConfig()
    arrays = sample_arrays(config, ROWS, 0)
    texts = write_descriptive(scenes_from_arrays(arrays, config), 0)
    files = []
    for picture in render(arrays, config, SIDE):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        files.append(file.getvalue())
    return repeated(folder, ROWS, files, (SIDE, SIDE), lambda row: texts[row])


def speed(dataset: Dataset, work: Path, padded: bool = False, **switch: Any) -> tuple[float, float]:
    """Pictures a CPU second behind the warm-up, and the last loss."""
    given = {
        "captions": {KIND: 1.0},
        "steps": WARM_UP + STEPS,
        "log_every": WARM_UP,
        "checkpoint_minutes": 0,
        "validation_samples": 0,
        "grid_size": 0,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
    }
    settings = TrainSettings(**{**given, **switch})
    config = model_config(settings)
    index, _ = build_index(dataset, settings, config, SELECTION)

    def make() -> TextToImage:
        model = build_model(config, settings, index.texts())
        if padded:
            model.__class__ = Padded
        return model

    model = make()
    data = open_data(dataset, settings, config, model.text, SELECTION, latents=model.latents)
    with tempfile.TemporaryDirectory(dir=work) as out:
        place = Path(out)
        _, state = train_loop(
            model, make, data, settings, config, place, "bench", on_step=_quiet, say=_silent
        )
    first, last = state.metrics[0], state.metrics[-1]
    pictures = (last["step"] - first["step"]) * settings.batch_size
    return pictures / (last["cpu_seconds"] - first["cpu_seconds"]), last["loss"]


def _silent(sentence: str) -> None:
    """Nothing of it belongs to a figure."""


def _quiet(done: int, total: int, told: str) -> None:
    """No bar."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = world(Path(folder) / "data")
        for name, switch in SWITCHES.items():
            rate, loss = speed(dataset, Path(folder), **switch)
            print(f"{name:22} {rate:7.1f} pictures a CPU second, loss {loss:.4f}", flush=True)
