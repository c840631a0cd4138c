"""What is measured on a GPU, a part at a time: `python -m pipelines.bench.train.on_gpu PART OUT`.

    parity    losses of 20 steps beside a CPU's, float32, noise drawn on the CPU
    dit-33m   128 px from cached pictures, its word encoder trained along, Muon
    dit-130m  256 px from cached latents and cached T5 features, Muon
    pixart    PixArt-XL/2 from nothing at 512 px, likewise, AdamW
    world     one arm on pictures of the world at 128 px, with validation and a grid
    beside    our step beside the bare one and beside diffusers' loop, dit-33m

Figures are printed as JSON lines; `gpu.sh` runs all parts, each within a time. Nothing comes from
a hub: autoencoder and T5 are random ones of the published shapes. With CAPLAB_BENCH_TINY set the
same code runs on tiny networks, wherever it is.
"""

from __future__ import annotations

import io
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from curate.base.settings import dtype_of
from pipelines.bench.common.figures import Figure, Figures, render
from pipelines.bench.train.memory import caption, coloured
from pipelines.bench.train.pictures import KIND, SELECTION, captioned, repeated
from train.assemble import build_model
from train.data.cache import precompute
from train.data.index import build_index
from train.data.loader import open_data
from train.loop import train_loop
from train.meter import datasheet_rate, matmul_rate
from train.settings import TrainSettings, model_config

TINY = bool(os.environ.get("CAPLAB_BENCH_TINY"))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

_SMALL = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
# Preset: resolution, batch, backbone's arguments and goal of MFU; and the two sizes when tiny.
_NETWORKS: dict[str, tuple[int, int, dict[str, Any], float | None, int, int]] = {
    "dit-33m": (128, 256, {}, 0.35, 32, 4),
    "dit-130m": (256, 256, {}, None, 64, 4),
    "pixart": (512, 32, {"interpolation_scale": 1}, 0.45, 64, 2),
}


def parity(work: Path) -> Figures:
    """The largest relative difference of a step's loss."""
    torch.backends.cudnn.allow_tf32 = False  # of the patch embedding, a convolution
    dataset = repeated(work / "data", 640, [coloured(n) for n in range(64)], (16, 16), caption)
    told = {"model": "tiny-test" if TINY else "photo-64", "steps": 20, "batch_size": 32}
    told |= {"precision": "fp32", "noise_on": "cpu", "log_every": 1, "compile": "none"}
    losses = [
        [row["loss"] for row in _trained(dataset, work / device, _settings(device=device, **told))]
        for device in ("cpu", DEVICE)
    ]
    figures = Figures("train/gpu/parity")
    apart = max(abs(own - cpu) / cpu for cpu, own in zip(*losses, strict=True))
    figures.add("largest_relative_difference_of_20_losses", apart, "", at_most=1e-3)
    figures.add("last_loss", losses[1][-1], "", ("CPU", losses[0][-1]))
    return figures


def network(name: str, work: Path) -> Figures:
    """Pictures a second, share of the matmul rate and of the datasheet, peak memory."""
    side, batch, arguments, goal, tiny_side, tiny_batch = _NETWORKS[name]
    if TINY:
        side, batch, arguments = tiny_side, tiny_batch, {**arguments, **_SMALL}
    if TINY and name == "pixart":
        arguments = {**arguments, "cross_attention_dim": 16}
    preset: dict[str, Any] = {"base": name, "model": {"backbone": {"config": arguments}}}
    if name != "dit-33m":
        preset["model"]["source"] = str(_random_parts(work / "parts"))
    (work / "preset.yaml").write_text(yaml.safe_dump(preset))
    steps, first = (4, 2) if TINY else (60, 20)
    count = batch * 8
    pictures = [_noise(number, side) for number in range(16)]
    # A few hundred texts, so that their features fit in memory as those of a real run do on disk.
    dataset = repeated(
        work / "data", count, pictures, (side, side), lambda n: caption(n % 256), "jpg"
    )
    settings = _settings(
        model=str(work / "preset.yaml"),
        resolution=side,
        batch_size=batch,
        steps=steps,
        log_every=first,
        aspect_buckets=False,
        activation_checkpointing=False,
        precision="bf16",
        loader_workers=0 if TINY else 4,
        cache=work / "cache",
    )
    config = model_config(settings)
    index, _ = build_index(dataset, settings, config, SELECTION)
    model = build_model(config, settings, index.texts())
    precompute(dataset, settings, config, model, SELECTION, say=_silent)
    del model
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rows = _trained(dataset, work / "run", settings)
    counted = (rows[-1]["step"] - rows[0]["step"]) * batch
    speed = counted / (rows[-1]["seconds"] - rows[0]["seconds"])
    flops = rows[-1]["teraflops"] * 1e12 / rows[-1]["images_per_second"]
    device, dtype = torch.device(DEVICE), dtype_of("bf16")
    figures = Figures(f"train/gpu/{name}/bf16")
    figures.add("images_per_second", speed, "images/s")
    matmul = ("matmul", matmul_rate(device, dtype) / 1e12)
    figures.add("of_matmul", speed * flops / 1e12, "TFLOP/s", matmul, at_least=goal)
    if (datasheet := datasheet_rate(device, dtype)) is not None:
        beside = ("datasheet", datasheet / 1e12)
        figures.add("of_datasheet", speed * flops / 1e12, "TFLOP/s", beside)
    figures.add("peak_memory", _peak_bytes() / 2**30, "GiB")
    figures.add("loss", rows[-1]["loss"], "")
    return figures


def world(work: Path) -> Figures:
    """A whole run on pictures of the world: it is looked at, so the grid stays beside the figures.

    The preset is dit-33m, since the demo's network has 16 patches of 8 px alone.
    """
    from pipelines.world.render import render as drawn
    from pipelines.world.scene import WorldConfig, sample_scenes
    from pipelines.world.writers import write_descriptive
    from train.run import train

    count, side, steps = (64, 32, 4) if TINY else (12_000, 128, 1000)
    config = WorldConfig.small()
    scenes = sample_scenes(config, count, 0)
    texts = write_descriptive(scenes, 0)
    pictures = [
        _jpeg(pixels)
        for start in range(0, count, 1000)
        for pixels in drawn(scenes[start : start + 1000], config, side)
    ]
    dataset = repeated(work / "data", count, pictures, (side, side), texts.__getitem__, "jpg")
    base = "tiny-test" if TINY else "dit-33m"
    settings = _settings(
        model=base,
        resolution=side,
        batch_size=8 if TINY else 256,
        steps=steps,
        warmup_steps=min(100, steps),
        validation_share=0.02,
        validation_samples=64,
        validate_every=0,
        grid_size=16,
        grid_every=0,
        checkpoint_every=0,
        precision="auto",
        loader_workers=0 if TINY else 8,
    )
    summary = train(dataset, settings, work / "run", SELECTION, on_step=_quiet, say=_silent)
    for grid in (work / "run" / "grids").glob("*.png"):
        shutil.copy(grid, work.parent / "world-grid.png")
    figures = Figures("train/gpu/world-128")
    figures.add("images_per_second", summary.images_per_second, "images/s")
    told, empty = summary.validation[KIND], summary.validation["empty"]
    figures.add("validation_loss", told, "", ("without its caption", empty))
    return figures


def beside(work: Path) -> Figures:
    """As `caplab bench train` on a CPU, with the goals of a GPU, on generated pictures."""
    from pipelines.bench.train.step import StepRun, step_figures

    run = StepRun("dit-33m", "bf16", DEVICE, 256, steps=40, warm_up=20, rounds=2, workers=8)
    if TINY:
        run = StepRun("tiny-test", "fp32", DEVICE, 4, steps=2, warm_up=1, rounds=1)
    dataset = captioned([], 32 if TINY else 2048, work / "pictures")
    return step_figures(dataset, work, run)


def _settings(**told: Any) -> TrainSettings:
    """Of a run that is neither looked at nor checked for its words, but for what is told."""
    given: dict[str, Any] = {
        "captions": {KIND: 1.0},
        "allow_unknown_words": True,
        "device": DEVICE,
        "checkpoint_minutes": 0,
        "validation_samples": 0,
        "grid_size": 0,
    }
    return TrainSettings(**given | told)


def _trained(dataset: Any, out: Path, settings: TrainSettings) -> Sequence[dict[str, Any]]:
    """The rows of the metrics of a bare loop."""
    config = model_config(settings)
    index, _ = build_index(dataset, settings, config, SELECTION)

    def make() -> Any:
        return build_model(config, settings, index.texts())

    model = make()
    data = open_data(dataset, settings, config, model.text, SELECTION, latents=model.latents)
    _, state = train_loop(
        model, make, data, settings, config, out, "bench", on_step=_quiet, say=_silent
    )
    return state.metrics


def _random_parts(folder: Path) -> Path:
    """Autoencoder of 8 px a latent and T5 of width 4096 (32 when tiny), as a pipeline's folder."""
    from diffusers import AutoencoderKL, DDIMScheduler, PixArtSigmaPipeline
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    words = sorted({word for number in range(256) for word in caption(number).split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"▁{w}", -1.0) for w in words)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    width = 32 if TINY else 4096
    shape = {"d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "use_cache": False}
    t5 = T5EncoderModel(T5Config(vocab_size=len(pieces), d_model=width, **shape))
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
    pipeline = PixArtSigmaPipeline(
        vae=autoencoder,
        text_encoder=t5.to(torch.bfloat16),
        tokenizer=tokenizer,
        transformer=None,
        scheduler=DDIMScheduler(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _noise(seed: int, side: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
    return _jpeg(coarse.numpy(), side)


def _jpeg(pixels: Any, side: int | None = None) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture if side is None else picture.resize((side, side))).save(out, "JPEG", quality=92)
    return out.getvalue()


def _peak_bytes() -> int:
    """Of the GPU's memory, or of this process."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _silent(sentence: str) -> None:
    """Figures alone are told."""


def _quiet(done: int, total: int, told: str) -> None:
    """No bar."""


PARTS: dict[str, Callable[[Path], Figures]] = {
    "parity": parity,
    **{name: partial(network, name) for name in _NETWORKS},
    "world": world,
    "beside": beside,
}


def measure(part: str, out: Path) -> Figures:
    """The figures of a part; of its files only a grid stays in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{part}-", dir=out))
    try:
        return PARTS[part](work)
    finally:
        shutil.rmtree(work)


def gpu_figures(out: Path) -> list[Figure]:
    """All parts, one behind the other in this process, without a limit of time."""
    return [figure for part in PARTS for figure in measure(part, out)]


if __name__ == "__main__":
    print(render(measure(sys.argv[1], Path(sys.argv[2])), as_json=True))
