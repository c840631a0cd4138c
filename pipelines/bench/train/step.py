"""One step of the trainer, beside the bare step and beside a loop as diffusers' scripts write it.

    precomputed  `train_loop` as it is, pictures from the cache that --precompute wrote
    decoding     the same in its first epoch: every picture is decoded from its tar
    bare         forward, backward and `Optimizer.step` of the same model on tensors that lie on
                 the device; nothing is read, drawn or noised
    diffusers    see `diffusers_style`

The parts take turns in rounds, each from fresh weights and with a warm-up that is not counted, so
what else the machine does hurts all of them alike; the median round counts. Hidden matrices get
AdamW as all others do, since the peer has no Muon.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from curate.base.settings import dtype_of
from pipelines.bench.common.devices import finish
from pipelines.bench.common.figures import Figures
from pipelines.bench.common.packed_pictures import pictures_of
from pipelines.bench.train.diffusers_style import ImageFolder, train_as_diffusers
from pipelines.bench.train.pictures import KIND, SELECTION
from train.assemble import build_model
from train.backbones import compile_blocks, is_hidden_matrix, use_fast_attention
from train.data.cache import precompute
from train.data.index import build_index
from train.data.loader import TrainingData, open_data
from train.loop import clean, step_noise, text_of, train_loop
from train.meter import matmul_rate
from train.model import TextToImage
from train.optimizer import Optimizer
from train.settings import TrainSettings, model_config

if TYPE_CHECKING:
    from curate.store.dataset import Dataset


@dataclass(frozen=True)
class StepRun:
    """What is measured."""

    model: str = "photo-64"
    precision: str = "fp32"
    device: str = "cpu"
    batch_size: int = 64
    steps: int = 6
    """That count, of each part in each round."""
    warm_up: int = 2
    rounds: int = 3
    workers: int = 0
    """Processes that decode for us."""

    @property
    def against_diffusers(self) -> float:
        """The goal."""
        return 1.3 if self.device == "cpu" else 2.0


def precisions(device: str) -> list[str]:
    """fp32, and bf16 where a CPU multiplies it; on a GPU bf16 alone."""
    if device != "cpu":
        return ["bf16"]
    able = torch.cpu.get_capabilities()
    return ["fp32", "bf16"] if able.get("avx512_bf16") or able.get("amx_bf16") else ["fp32"]


def step_figures(dataset: Dataset, work: Path, run: StepRun) -> Figures:
    """Pictures a second of all parts, as ratios."""
    parts = _Parts(dataset, work, run)
    speeds: dict[str, list[float]] = {}
    for _ in range(run.rounds):
        for name, part in parts.all().items():
            speeds.setdefault(name, []).append(part())
    speed = {name: median(found) for name, found in speeds.items()}
    figures = Figures(f"train/{run.model}/{run.precision}")
    for name, goals in {
        "precomputed": (0.95, run.against_diffusers),
        "decoding": (None, None),
    }.items():
        peers = (("bare step", speed["bare"]), ("diffusers' loop", speed["diffusers"]))
        for (peer, own), goal in zip(peers, goals, strict=True):
            figures.add(name, speed[name], "images/s", (peer, own), at_least=goal)
    share = speed["precomputed"] * parts.flops / 1e9
    figures.add("precomputed/matmuls", share, "GFLOP/s", ("matmul", speed["matmul"]))
    return figures


class _Parts:
    """The parts, each returning its pictures a second."""

    def __init__(self, dataset: Dataset, work: Path, run: StepRun) -> None:
        self.dataset, self.work, self.run = dataset, work, run
        self.count = 0
        self.flops = 0.0
        """Of the backbone, forward and backward, a picture; known once the loop has run."""
        self.settings = TrainSettings(
            model=run.model,
            captions={KIND: 1.0},
            allow_unknown_words=True,
            muon_learning_rate=0,
            steps=run.warm_up + run.steps,
            batch_size=run.batch_size,
            warmup_steps=0,
            log_every=run.warm_up,
            checkpoint_minutes=0,
            validation_samples=0,
            grid_size=0,
            device=run.device,
            precision=run.precision,  # type: ignore[arg-type]
            loader_workers=run.workers,
            cache=work / "decoding",
        )
        self.config = model_config(self.settings)
        self.index, _ = build_index(dataset, self.settings, self.config, SELECTION)
        self.cached = self.settings.model_copy(update={"cache": work / "precomputed"})
        precompute(dataset, self.cached, self.config, self.model(), SELECTION, say=_silent)

    def all(self) -> dict[str, Callable[[], float]]:
        """In the order in which they take turns."""
        return {
            "precomputed": lambda: self.ours(self.cached),
            "diffusers": self.diffusers,
            "bare": self.bare,
            "decoding": lambda: self.ours(self.settings),
            "matmul": lambda: matmul_rate(self.device, self.dtype) / 1e9,
        }

    @property
    def device(self) -> torch.device:
        return torch.device(self.run.device)

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.run.precision)  # type: ignore[arg-type]

    def model(self) -> TextToImage:
        """The same weights every time."""
        return build_model(self.config, self.settings, self.index.texts())

    def data(self, settings: TrainSettings, model: TextToImage) -> TrainingData:
        return open_data(
            self.dataset, settings, self.config, model.text, SELECTION, latents=model.latents
        )

    def ours(self, settings: TrainSettings) -> float:
        model = self.model()
        self.count += 1
        _, state = train_loop(
            model,
            self.model,
            self.data(settings, model),
            settings,
            self.config,
            self.work / f"run-{self.count}",
            "bench",
            on_step=_quiet,
            say=_silent,
        )
        first, last = state.metrics[0], state.metrics[-1]
        self.flops = last["teraflops"] * 1e12 / last["images_per_second"]
        counted = (last["step"] - first["step"]) * settings.batch_size
        return float(counted / (last["seconds"] - first["seconds"]))

    def bare(self) -> float:
        model, settings = self.model().to(self.device), self.settings
        model.latents.to(self.device)
        optimizer = Optimizer(model.trained_parameters(), settings, is_hidden_matrix)
        model.to(self.dtype)
        use_fast_attention(model.backbone, self.device, model.patches(self.config.resolution))
        if self.device.type == "cuda":
            compile_blocks(model.backbone)
        (batch,) = next(iter(self.data(self.cached, model).batches(0, 1)))
        text: Any = batch.text  # tokens or features
        text = model.without_padding(text)
        objective = model.objective
        x0 = clean(batch, model.latents, self.device)
        noise, t = step_noise(settings, objective, 0, x0.shape[1:], self.device)
        x_t = objective.noised(x0, noise, t)
        inputs = (
            objective.model_input(x_t, t).to(self.dtype),
            objective.model_time(t),
            text_of(text, self.device, self.dtype),
            batch.size_ids.to(self.device),
            batch.conditions.to(self.device),
        )
        begun = 0.0
        for step in range(settings.steps):
            if step == self.run.warm_up:
                finish(self.device)
                begun = time.perf_counter()
            objective.loss(model(*inputs), x0, noise, x_t, t).mean().backward()
            optimizer.step(step, 1.0)
        finish(self.device)
        return self.run.steps * settings.batch_size / (time.perf_counter() - begun)

    def diffusers(self) -> float:
        model = self.model()
        model.latents.to(self.device)
        files, captions = self.files
        data = ImageFolder(files, captions, self.config.resolution)
        return train_as_diffusers(model, data, self.settings, self.settings.steps, self.run.warm_up)

    @cached_property
    def files(self) -> tuple[list[Path], list[str]]:
        """Every stored picture as a file, as the scripts read them, and its caption."""
        folder = self.work / "files"
        folder.mkdir(exist_ok=True)
        files = []
        for number, content in enumerate(pictures_of(self.dataset)):
            files.append(folder / f"{number}.jpg")
            files[-1].write_bytes(content)
        connection = self.dataset.connect(["samples"])
        rows = connection.execute(
            "SELECT alt_text FROM samples WHERE status = 'stored' ORDER BY shard, row"
        ).fetchall()
        return files, [text for (text,) in rows]


def all_precisions(dataset: Dataset, work: Path, run: StepRun) -> Figures:
    """`step_figures` in every precision that the device computes."""
    figures = Figures("train")
    for precision in precisions(run.device):
        figures += step_figures(dataset, work / precision, replace(run, precision=precision))
    return figures


def _silent(sentence: str) -> None:
    """Nothing of it belongs to a figure."""


def _quiet(done: int, total: int, told: str) -> None:
    """No bar."""
