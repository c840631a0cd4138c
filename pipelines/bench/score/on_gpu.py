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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.scoring.stage import ScoreSettings, ScoreStage
from pipelines.bench.common.devices import demand
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.packed_pictures import pack_pairs
from pipelines.bench.score.bare_forward import bare_forward, texts_of
from pipelines.bench.score.random_clip import write_model
from pipelines.bench.score.runs import linked_copy


@dataclass(frozen=True)
class GpuRun:
    """What to measure on which device."""

    model: str = "ViT-L-14"
    precision: str = "bf16"
    device: str = "cuda"
    peak_tflops: float | None = None
    """Dense peak of the GPU in this precision, from its data sheet; None leaves MFU out."""
    batch_sizes: Sequence[int] = (64, 128, 256, 512, 1024)


def gpu_figures(folders: Sequence[Path], limit: int, out: Path | None, run: GpuRun) -> Figures:
    """Images a second end to end, its share of the bare forward, and MFU.

    Raises:
        ConfigError: there is no such device, or the folders hold fewer pairs.
    """
    import open_clip

    demand(run.device)
    work = work_folder(out)
    pairs = pack_pairs(folders, limit, work / "pairs")
    files = write_model(work / "model", run.model)
    stage = ScoreStage(
        ScoreSettings(
            clip_model=run.model,
            clip_pretrained=str(files.safetensors),
            precision=run.precision,  # type: ignore[arg-type]
            device=run.device,
            score_batch_size=256,
            decode_threads=max(2, (os.cpu_count() or 2) - 1),
            score_threads=2,  # one batch on the GPU, one between decoder, tokenizer and tables
        )
    )
    stage.open()
    for _ in range(2):  # the second time counts
        dataset = linked_copy(pairs, work / "scored")
        started = time.perf_counter()
        for shard in dataset.shards():
            stage.run(dataset, shard)
        speed = limit / (time.perf_counter() - started)
    texts = texts_of(pairs)
    bare = bare_forward(
        run.model, files.safetensors, texts, run.precision, run.device, run.batch_sizes
    )
    figures = Figures(f"score/gpu/{run.model}/{run.precision}")
    limit_speed = 1 / (bare["picture"] + bare["padded_text"])
    figures.add("images_per_second", speed, "images/s", ("bare forward", limit_speed), at_least=0.9)
    figures.add("bare_pictures_alone", 1 / bare["picture"], "images/s")
    if run.peak_tflops is not None:
        tokens = open_clip.get_tokenizer(run.model)(texts)
        length = float((tokens.argmax(dim=1) + 1).float().mean())
        flops = pair_flops(open_clip.get_model_config(run.model), length)
        figures.add("mfu", speed * flops / (run.peak_tflops * 1e12), "of peak")
    return figures


def pair_flops(config: Mapping[str, Any], tokens: float) -> float:
    """Floating-point operations of one picture and one text of `tokens` tokens; see the module."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    first = 2 * patches * 3 * vision["patch_size"] ** 2 * vision["width"]

    def tower(positions: float, layers: int, width: int) -> float:
        return 2 * positions * layers * (12 * width**2 + 2 * positions * width)

    return (
        first
        + tower(patches + 1, vision["layers"], vision["width"])
        + tower(tokens, text["layers"], text["width"])
    )
