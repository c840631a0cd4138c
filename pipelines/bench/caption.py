"""`caplab bench caption`: pictures a second from shards to the captions table.

The transformers engine, end to end, beside a bare `model.generate` loop at its best batch size with
the same model, pictures and new tokens (pipelines.bench.caption_bare). Weights are random and no
token ends a text, so every row writes as many tokens as it may (pipelines.bench.caption_model).

    steady state   CaptionStage in this process, model loaded and warm: read the tar, decode,
                   process, generate, gates, table. No Ray, so it runs where there is none.
    whole run      `caplab recaption` from the start of its process to its end, Ray included; with
                   --gpu loading and captioning in this process instead
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.caption_bare import BareModel, BareSpeeds
from pipelines.bench.caption_model import PRECISIONS, parameters, write_captioner
from pipelines.bench.caption_pictures import pack_pictures
from pipelines.bench.caption_uneven import UnevenRun, uneven_figures
from pipelines.bench.figures import Figure
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage

KIND = "descriptive"
_GOAL = 0.95

Say = Callable[[str], Any]


@dataclass(frozen=True)
class CaptionRun:
    """What to measure on which device."""

    preset: str = "small"
    device: str = "cpu"
    dtype: str = "float32"
    tokens: int = 64
    """New tokens a picture."""
    image_size: int = 512
    batch_sizes: Sequence[int] = (8, 16, 32, 64)
    whole_command: bool = True
    """Whether the whole run is the command with Ray; else loading and captioning in process."""


def caption_figures(
    folders: Sequence[Path], limit: int, out: Path | None, run: CaptionRun, say: Say = print
) -> list[Figure]:
    """Speeds of the engine end to end, and their share of the bare loop.

    Raises:
        ConfigError: there is no such device or preset, or the folders hold fewer pictures.
    """
    import torch

    if run.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("There is no GPU that torch can use here; leave --gpu out.")
    work = (out or Path(tempfile.mkdtemp(prefix="caplab-bench-caption-"))).absolute()
    say(f"packing pictures and the captioner {run.preset} into {work}")
    model = write_captioner(work / f"model-{run.preset}", run.preset, run.dtype)
    dataset = pack_pictures(folders, limit, work / "pictures")
    pictures = [image for shard in dataset.shards() for _, image, _ in iter_shard(dataset, shard)]
    stage = CaptionStage(_settings(model, run, 1))
    prompt = stage.plans[KIND].template.render([None])[0]
    bare = BareModel(model, run.device, run.dtype, prompt, run.tokens)
    first = bare.sweep(pictures, run.image_size, run.batch_sizes)
    best = first.batch_size
    say(f"generate alone, pictures/s by batch size: {_words(first)}")
    inline = bare.inline(pictures[: max(2 * best, 1)], run.image_size, best)
    settings = _settings(model, run, best)
    _empty_cache(run.device)
    started = time.perf_counter()
    stage = CaptionStage(settings)
    stage.open()
    loading = time.perf_counter() - started
    warm = pack_pictures(folders, min(limit, best), work / "warm")
    _caption_all(stage, warm)
    cpu_started = time.process_time()
    seconds = _caption_all(stage, dataset)
    cpu = time.process_time() - cpu_started
    rows = _rows(dataset, stage.source)
    # Once more behind it: a machine whose clock moved meanwhile moved for both.
    again = bare.sweep(pictures, run.image_size, [best])
    say(f"generate alone, once more: {_words(again)}")
    whole = loading + seconds
    if run.whole_command:
        from pipelines.bench.processes import run_measured

        fresh = pack_pictures(folders, limit, work / "whole")
        whole = run_measured(_command(fresh, settings)).wall_seconds
    limit_speed = (first.best + again.best) / 2
    figures = _figures(run, model, rows, best, limit_speed, inline, seconds, whole)
    bare_cpu = (first.cpu_by_batch_size[best] + again.cpu_by_batch_size[best]) / 2
    figures.insert(
        1,
        Figure(
            f"{_name(run)}/cpu_per_image/steady_state",
            cpu / len(pictures),
            "CPU-s",
            f"bare generate, batch {best}",
            bare_cpu,
            round(1 / _GOAL, 2),
        ),
    )
    del stage, bare
    _empty_cache(run.device)
    uneven = UnevenRun(run.device, run.dtype, run.tokens, best, run.image_size)
    some = (pictures * (1 + 4 * best // len(pictures)))[: 4 * best]
    return figures + uneven_figures(model, some, prompt, uneven, _name(run))


def _settings(model: Path, run: CaptionRun, batch_size: int) -> RecaptionSettings:
    return RecaptionSettings(
        captioner=str(model),
        kinds=(KIND,),
        max_new_tokens={KIND: run.tokens},
        retries=0,
        t5_tokenizer="",  # would be asked of the hub
        image_size=run.image_size,
        device=run.device,
        precision=PRECISIONS[run.dtype],
        batch_size=batch_size,
    )


def _command(dataset: Dataset, settings: RecaptionSettings) -> list[str | Path]:
    """The same captions as a user asks for them."""
    options = {
        "captioner": settings.captioner,
        "kinds": KIND,
        "max-new-tokens": f"{KIND}={settings.max_new_tokens[KIND]}",
        "retries": settings.retries,
        "t5-tokenizer": settings.t5_tokenizer,
        "image-size": settings.image_size,
        "device": settings.device,
        "precision": settings.precision,
        "batch-size": settings.batch_size,
    }
    command: list[str | Path] = [sys.executable, "-m", "pipelines.cli", "recaption"]
    command.append(dataset.directory)
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return command


def _caption_all(stage: CaptionStage, dataset: Dataset) -> float:
    started = time.perf_counter()
    for shard in dataset.shards():
        stage.run(dataset, shard)
    return time.perf_counter() - started


def _rows(dataset: Dataset, source: str) -> pa.Table:
    names = ["status", "reason", "output_tokens", "prompt_tokens", "sent_width", "sent_height"]
    tables = [
        dataset.read_table("captions", shard, source, columns=names) for shard in dataset.shards()
    ]
    return pa.concat_tables(tables)


def _figures(
    run: CaptionRun,
    model: Path,
    rows: pa.Table,
    best: int,
    bare: float,
    inline: float,
    seconds: float,
    whole: float,
) -> list[Figure]:
    name = _name(run)
    count = rows.num_rows
    written = pc.mean(rows.column("output_tokens")).as_py() or 0.0
    spoken = pc.sum(pc.invert(pc.equal(rows.column("status"), "failed"))).as_py() or 0
    accepted = pc.sum(pc.equal(rows.column("status"), "ok")).as_py() or 0
    pixels = [pc.mean(rows.column(f"sent_{side}")).as_py() or 0 for side in ("width", "height")]
    speed = f"{name}/images_per_second"
    peer = f"bare generate, batch {best}"
    return [
        Figure(f"{speed}/steady_state", count / seconds, "images/s", peer, bare, _GOAL, "higher"),
        Figure(f"{speed}/whole_run", count / whole, "images/s", peer, bare),
        Figure(f"{speed}/inline_loop", inline, "images/s", peer, bare),
        Figure(f"{name}/captions_written", spoken, "rows", goal=count, better="higher"),
        Figure(
            f"{name}/output_tokens", round(written, 1), "tokens", goal=run.tokens, better="higher"
        ),
        Figure(f"{name}/prompt_tokens", round(_mean(rows, "prompt_tokens"), 1), "tokens"),
        Figure(f"{name}/image_width", round(pixels[0]), "px"),
        Figure(f"{name}/image_height", round(pixels[1]), "px"),
        Figure(f"{name}/accepted_share", round(accepted / count, 3), "of rows"),
        Figure(f"{name}/parameters", parameters(model) / 1e6, "million"),
    ]


def _name(run: CaptionRun) -> str:
    return f"caption/transformers/{run.preset}-random-weights/{run.dtype}"


def _mean(rows: pa.Table, column: str) -> float:
    return float(pc.mean(rows.column(column)).as_py() or 0.0)


def _words(speeds: BareSpeeds) -> str:
    return ", ".join(f"{size}: {speed:.2f}" for size, speed in speeds.by_batch_size.items())


def _empty_cache(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
