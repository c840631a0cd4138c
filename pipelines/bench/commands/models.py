"""Benchmarks of models: captioning, training, the ablation, the whole road."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.bench.commands.group import PLACE, benchmark, pairs_option

if TYPE_CHECKING:
    from pipelines.bench.common.figures import Figure


@benchmark("demo")
def bench_demo(out: Path | None) -> list[Figure]:
    """Seconds, CPU seconds and peak memory of each stage of `caplab demo`."""
    from pipelines.bench.common.figures import Figures, work_folder
    from pipelines.demo.demo import demo
    from pipelines.demo.settings import DemoSettings

    # No peer does the whole job, and there is no goal for a machine that is not named.
    costs = demo(out or work_folder(None) / "demo", DemoSettings()).costs
    figures = Figures("demo")
    for cost in costs:
        figures.add(f"{cost.stage}/wall", cost.seconds, "s")
        figures.add(f"{cost.stage}/cpu", cost.cpu_seconds, "s")
        figures.add(f"{cost.stage}/peak_memory", cost.peak_memory_bytes >> 20, "MiB")
    figures.add("total/wall", sum(cost.seconds for cost in costs), "s")
    figures.add("total/cpu", sum(cost.cpu_seconds for cost in costs), "s")
    return figures


@benchmark("ablation")
@click.option("--studies", default=4000, show_default=True, help="Made studies of each case.")
def bench_ablation(out: Path | None, studies: int) -> list[Figure]:
    """False claims, coverage and power of the ablation's statistics where the truth is known.

    Its own code on made studies: 3, 5 and 8 seeds, three declared contrasts. Nothing is timed.
    """
    from pipelines.bench.ablation.simulation import simulation_figures

    return simulation_figures(studies)


@benchmark("caption")
@click.option(
    "--part",
    type=click.Choice(["transformers", "http", "all"]),
    default="transformers",
    show_default=True,
    help="Which engine to measure.",
)
@pairs_option(required=False, words=" Without: generated pictures.")
@click.option("--limit", default=256, show_default=True, help="Pictures in all.")
@click.option(
    "--batch-sizes", default="", help="To sweep; default 8,16,32,64, with --gpu 32,64,128,256."
)
@click.option("--tokens", default=64, show_default=True, help="New tokens a picture.")
@click.option("--gpu", is_flag=True, help="A full-size model in bf16 on this machine's GPU.")
@click.option(
    "--model",
    "preset",
    help="Random weights in the sizes of: tiny, small (default), llava-1.5-7b, qwen2.5-vl-3b "
    "(default with --gpu).",
)
@click.option("--requests", default=3200, show_default=True, help="Of the http part, a round.")
@click.option("--no-peers", is_flag=True, help="The http part without Ray's processor.")
def bench_caption(
    out: Path | None,
    part: str,
    folders: tuple[Path, ...],
    limit: int,
    batch_sizes: str,
    tokens: int,
    gpu: bool,
    preset: str | None,
    requests: int,
    no_peers: bool,
) -> list[Figure]:
    """Pictures a second from shards to captions, beside a bare model.generate loop.

    The models have random weights and no end token, so every caption has the same length. The http
    part measures the client alone, on a server of its own that answers after 100 ms, beside Ray's
    HTTP processor.
    """
    figures: list[Figure] = []
    if part in ("transformers", "all"):
        from pipelines.bench.caption.beside_generate import CaptionRun, caption_figures

        swept = batch_sizes or ("32,64,128,256" if gpu else "8,16,32,64")
        run = CaptionRun(
            preset=preset or ("qwen2.5-vl-3b" if gpu else "small"),
            device="cuda" if gpu else "cpu",
            dtype="bfloat16" if gpu else "float32",
            tokens=tokens,
            batch_sizes=tuple(int(size) for size in swept.split(",")),
            whole_command=not gpu,
        )
        figures += caption_figures(folders, limit, out, run)
    if part in ("http", "all"):
        from pipelines.bench.caption.over_http import HttpRun, http_figures

        run_http = HttpRun(
            requests=requests,
            resized_requests=max(1, requests // 4),
            ray_requests=0 if no_peers else HttpRun.ray_requests,
        )
        figures += http_figures(folders, limit, out and out / "http", run_http)
    return figures


@benchmark("captioner-fit")
@click.option("--pairs", default=3000, show_default=True, help="Pictures with clean captions.")
@click.option("--noisy", default=20_000, show_default=True, help="Alt texts; 0 for none.")
@click.option("--held-out", default=1000, show_default=True, help="Scenes to caption.")
@click.option("--seed", default=0, show_default=True, help="Of the pairs and of the fit.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--config", type=PLACE, help="YAML of fit settings that differ from the bench's.")
def bench_captioner_fit(out: Path | None, **given: Any) -> list[Figure]:
    """Precision and recall of captioners fitted on the world, checkpoints and all.

    Runs `caplab captioner fit` from nothing on made pairs, then captions held-out scenes.
    """
    from pipelines.bench.caption.fitted import captioner_fit_figures

    return captioner_fit_figures(out, **given)


@benchmark("killed-captions")
@pairs_option(required=True)
@click.option("--limit", default=2000, show_default=True, help="Pictures in all.")
def bench_killed_captions(out: Path | None, folders: tuple[Path, ...], limit: int) -> list[Figure]:
    """Kill `caplab recaption` twice on real photographs and count the rows that it ends with.

    In process, and over HTTP against a scripted server. Nothing is timed.
    """
    from pipelines.bench.caption.killed import killed_caption_figures

    return killed_caption_figures(folders, limit, out)


@benchmark("train")
@pairs_option(required=False, words=" Without: generated pictures.")
@click.option(
    "--part",
    type=click.Choice(["step", "pictures", "memory", "all"]),
    default="all",
    show_default=True,
    help="What to measure.",
)
@click.option("--limit", default=512, show_default=True, help="Pictures in all, but of memory.")
@click.option("--model", default="photo-64", show_default=True, help="Preset, or a YAML file.")
@click.option("--batch-size", default=64, show_default=True, help="Pictures a step.")
@click.option("--steps", default=6, show_default=True, help="That count, of each part and round.")
@click.option("--rounds", default=3, show_default=True, help="Turns of each part.")
@click.option(
    "--sizes", default="10000,100000,1000000", show_default=True, help="Samples, of memory."
)
@click.option("--gpu", is_flag=True, help="All parts of train/gpu.sh on this machine's GPU.")
def bench_train(
    out: Path | None,
    folders: tuple[Path, ...],
    part: str,
    limit: int,
    model: str,
    batch_size: int,
    steps: int,
    rounds: int,
    sizes: str,
    gpu: bool,
) -> list[Figure]:
    """The trainer's step, its pictures, and its memory at up to a million samples.

    The step stands beside the same network's bare forward, backward and optimizer, beside a loop
    as diffusers' scripts write it, and beside the rate of this machine's matrix products.
    """
    from pipelines.bench.common.figures import work_folder

    work = work_folder(out)
    if gpu:
        from pipelines.bench.common.devices import demand
        from pipelines.bench.train.on_gpu import gpu_figures

        demand("cuda")
        return gpu_figures(work)
    figures: list[Figure] = []
    if part != "memory":
        from pipelines.bench.train.decode import decode_figures
        from pipelines.bench.train.pictures import captioned
        from pipelines.bench.train.step import StepRun, all_precisions

        dataset = captioned(folders, limit, work / "pairs")
        if part != "pictures":
            run = StepRun(model, batch_size=batch_size, steps=steps, rounds=rounds)
            figures += all_precisions(dataset, work, run)
        if part != "step":
            figures += decode_figures(dataset, work, model)
    if part in ("memory", "all"):
        from pipelines.bench.train.memory import memory_figures

        figures += memory_figures(work, [int(size) for size in sizes.split(",")])
    return figures
