"""`caplab bench score --gpu`: pictures from JPEG shards to embeddings, and how busy the GPU was.

    images/s    the worker's own road (`ScoreStage`: read the tar, decode, CLIP), in one process on
                one GPU, models loaded and warm, all default scores computed
    share       of open_clip's bare forward of pictures and texts, tensors on the GPU already, at
                its best batch size, in the same precision
    MFU         floating-point operations of the model's products a second over the GPU's peak

Operations of a transformer of L blocks of width D over T positions, a multiply and an add counted
as two (Kaplan et al., 2020, without their backward):

    2 T L (12 D^2 + 2 T D)      linear layers (q, k, v, out, and an MLP of four widths), attention

plus 2 T 3 P^2 D for patches of P x P pixels. Of a text only its own tokens count, not the padding
that a forward may compute besides: MFU says how much useful work was done.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.store.dataset import Dataset
from pipelines.bench.figures import Figure
from pipelines.bench.score_model import write_model
from pipelines.bench.score_pairs import Pairs, pack_pairs

if TYPE_CHECKING:
    import torch

BATCH_SIZES = (64, 128, 256, 512, 1024)
ROWS_PER_SHARD = 1000


@dataclass(frozen=True)
class GpuRun:
    """What to measure on which device."""

    model: str = "ViT-L-14"
    precision: str = "bf16"
    device: str = "cuda"
    peak_tflops: float | None = None
    """Dense peak of the GPU in this precision, from its data sheet; None leaves MFU out."""
    batch_sizes: Sequence[int] = BATCH_SIZES


def gpu_figures(folders: Sequence[Path], limit: int, out: Path | None, run: GpuRun) -> list[Figure]:
    """Images a second end to end, its share of the bare forward, and MFU.

    Raises:
        ConfigError: there is no such device, or the folders hold fewer pairs.
    """
    import torch

    if run.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("There is no GPU that torch can use here; leave --gpu out.")
    work = (out or Path(tempfile.mkdtemp(prefix="caplab-bench-gpu-"))).absolute()
    pairs = pack_pairs(folders, limit, work / "pairs", ROWS_PER_SHARD)
    files = write_model(work / "model", run.model)
    settings = ScoreSettings(
        clip_model=run.model,
        clip_pretrained=str(files.safetensors),
        precision=run.precision,  # type: ignore[arg-type]
        device=run.device,
        score_batch_size=256,
        decode_threads=max(2, (os.cpu_count() or 2) - 1),
        score_threads=2,  # one batch on the GPU, one between decoder, tokenizer and tables
    )
    stage = ScoreStage(settings)
    stage.open()
    seconds = _end_to_end(stage, pairs, work / "scored")
    picture, text = _bare(run, str(files.safetensors), pairs)
    ours, bare = len(pairs.keys) / seconds, 1 / (picture + text)
    name = f"score/gpu/{run.model}/{run.precision}"
    figures = [
        Figure(f"{name}/images_per_second", ours, "images/s", "bare forward", bare, 0.9, "higher"),
        Figure(f"{name}/bare_pictures_alone", 1 / picture, "images/s"),
    ]
    if run.peak_tflops is not None:
        flops = pair_flops(_config(run.model), _mean_tokens(run.model, pairs))
        mfu = ours * flops / (run.peak_tflops * 1e12)
        figures.append(Figure(f"{name}/mfu", mfu, "of peak"))
    return figures


def pair_flops(config: Mapping[str, Any], tokens: float) -> float:
    """Floating-point operations of one picture and one text of `tokens` tokens; see the module."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    first = 2 * patches * 3 * vision["patch_size"] ** 2 * vision["width"]
    return (
        first
        + _tower_flops(patches + 1, vision["layers"], vision["width"])
        + _tower_flops(tokens, text["layers"], text["width"])
    )


def _tower_flops(positions: float, layers: int, width: int) -> float:
    return 2 * positions * layers * (12 * width**2 + 2 * positions * width)


def _end_to_end(stage: ScoreStage, pairs: Pairs, copy: Path) -> float:
    """Seconds of all shards, after the first was scored once to warm up."""
    for _ in range(2):  # the second time counts
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(pairs.dataset.directory, copy, copy_function=os.link)
        dataset = Dataset.open(copy)
        started = time.perf_counter()
        for shard in dataset.shards():
            stage.run(dataset, shard)
        seconds = time.perf_counter() - started
    return seconds


def _bare(run: GpuRun, weights: str, pairs: Pairs) -> tuple[float, float]:
    """Seconds a picture and a text of open_clip's own forward, at the best batch size."""
    import open_clip
    import torch

    model = open_clip.create_model(
        run.model, pretrained=weights, precision=run.precision, device=run.device
    ).eval()
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[run.precision]
    tokens = open_clip.get_tokenizer(run.model)(list(pairs.texts)[: max(run.batch_sizes)])
    tokens = tokens.to(run.device)
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        for count in run.batch_sizes:
            pictures = torch.randn(count, 3, side, side, dtype=dtype, device=run.device)
            some = tokens.repeat(-(-count // len(tokens)), 1)[:count]
            best[0] = min(best[0], _timed(model.encode_image, pictures))
            best[1] = min(best[1], _timed(model.encode_text, some))
    return best[0], best[1]


def _timed(forward: Any, batch: torch.Tensor, times: int = 5) -> float:
    """Seconds a row; the device has finished before either look at the clock."""
    import torch

    def wait() -> None:
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)

    forward(batch)
    wait()
    started = time.perf_counter()
    for _ in range(times):
        forward(batch)
    wait()
    return (time.perf_counter() - started) / times / len(batch)


def _config(name: str) -> Mapping[str, Any]:
    import open_clip

    config: Mapping[str, Any] = open_clip.get_model_config(name)
    return config


def _mean_tokens(name: str, pairs: Pairs) -> float:
    import open_clip

    tokens = open_clip.get_tokenizer(name)(list(pairs.texts))
    return float((tokens.argmax(dim=1) + 1).float().mean())
