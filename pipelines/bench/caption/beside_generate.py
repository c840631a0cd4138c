"""`caplab bench caption`: pictures a second from shards to the captions table.

The transformers engine, end to end, beside a bare `model.generate` loop at its best batch size with
the same model, pictures and new tokens (pipelines.bench.caption.bare_generate). Weights are random
and no token ends a text, so every row writes as many tokens as it may.

    steady state   CaptionStage in this process, model loaded and warm: read the tar, decode,
                   process, generate, gates, table. No Ray, so it runs where there is none.
    whole run      `caplab recaption` from the start of its process to its end; with --gpu loading
                   and captioning in this process instead
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from curate.base.progress import tell
from curate.store.dataset import Dataset
from pipelines.bench.caption.bare_generate import BareModel, Speed
from pipelines.bench.caption.random_captioners import PRECISIONS, parameters, write_captioner
from pipelines.bench.common.devices import demand
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.packed_pictures import pack_pictures, pictures_of
from pipelines.bench.common.processes import CAPLAB, options, run_measured
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage

KIND = "descriptive"
_GOAL = 0.95


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
    """Whether the whole run is the command; else loading and captioning in process."""


def caption_figures(
    folders: Sequence[Path], limit: int, out: Path | None, run: CaptionRun
) -> Figures:
    """Speeds of the engine end to end, and their share of the bare loop.

    Raises:
        ConfigError: there is no such device or preset, or the folders hold fewer pictures.
    """
    demand(run.device)
    work = work_folder(out)
    tell(f"packing pictures and the captioner {run.preset} into {work}")
    model = write_captioner(work / f"model-{run.preset}", run.preset, run.dtype)
    dataset = pack_pictures(folders, limit, work / "pictures")
    pictures = pictures_of(dataset)
    prompt = CaptionStage(_settings(model, run, 1)).plans[KIND].template.render([None])[0]
    bare = BareModel(model, run.device, run.dtype, prompt, run.tokens, run.image_size)
    first = bare.sweep(pictures, run.batch_sizes)
    best = max(first, key=lambda size: first[size].rate)
    tell(f"generate alone, pictures/s by batch size: {_words(first)}")
    inline = bare.inline(pictures[: 2 * best], best)
    settings = _settings(model, run, best)
    _empty_cache(run.device)
    started = time.perf_counter()
    stage = CaptionStage(settings)
    stage.open()
    loading = time.perf_counter() - started
    _caption_all(stage, pack_pictures(folders, min(limit, best), work / "warm"))
    cpu = time.process_time()
    seconds = _caption_all(stage, dataset)
    cpu = (time.process_time() - cpu) / len(pictures)
    # Once more behind it: a machine whose clock moved meanwhile moved for both.
    again = bare.sweep(pictures, [best])
    tell(f"generate alone, once more: {_words(again)}")
    whole = loading + seconds
    if run.whole_command:
        fresh = pack_pictures(folders, limit, work / "whole")
        command = [*CAPLAB, "recaption", fresh.directory, *_options(settings)]
        whole = run_measured(command).wall_seconds
    names = ["status", "output_tokens", "prompt_tokens", "sent_width", "sent_height"]
    rows = pa.concat_tables(
        dataset.read_table("captions", shard, stage.source, columns=names)
        for shard in dataset.shards()
    )
    count = rows.num_rows
    mean = {name: float(pc.mean(rows.column(name)).as_py() or 0) for name in names[1:]}
    status = rows.column("status").to_pylist()
    rate, bare_cpu = (sum(both) / 2 for both in zip(first[best], again[best], strict=True))
    peer = f"bare generate, batch {best}"
    figures = Figures(f"caption/transformers/{run.preset}-random-weights/{run.dtype}")
    speed, unit = "images_per_second", "images/s"
    figures.add(f"{speed}/steady_state", count / seconds, unit, (peer, rate), at_least=_GOAL)
    goal = round(1 / _GOAL, 2)
    figures.add("cpu_per_image/steady_state", cpu, "CPU-s", (peer, bare_cpu), at_most=goal)
    figures.add(f"{speed}/whole_run", count / whole, unit, (peer, rate))
    figures.add(f"{speed}/inline_loop", inline, unit, (peer, rate))
    figures.add("captions_written", count - status.count("failed"), "rows", at_least=count)
    figures.add("output_tokens", mean["output_tokens"], "tokens", at_least=run.tokens)
    figures.add("prompt_tokens", mean["prompt_tokens"], "tokens")
    figures.add("image_width", round(mean["sent_width"]), "px")
    figures.add("image_height", round(mean["sent_height"]), "px")
    figures.add("accepted_share", status.count("ok") / count, "of rows")
    figures.add("parameters", parameters(model) / 1e6, "million")
    return figures


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


def _options(settings: RecaptionSettings) -> list[str]:
    """The same captions as a user asks for them."""
    given = settings.model_dump(exclude_unset=True)
    tokens = {"kinds": KIND, "max_new_tokens": f"{KIND}={settings.max_new_tokens[KIND]}"}
    return options(given | tokens)


def _caption_all(stage: CaptionStage, dataset: Dataset) -> float:
    """Seconds."""
    started = time.perf_counter()
    for shard in dataset.shards():
        stage.run(dataset, shard)
    return time.perf_counter() - started


def _words(speeds: dict[int, Speed]) -> str:
    return ", ".join(f"{size}: {speed.rate:.2f}" for size, speed in speeds.items())


def _empty_cache(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
