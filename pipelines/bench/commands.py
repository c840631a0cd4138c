"""`caplab bench NAME`: one subcommand a benchmark, each with its own options.

Imports happen inside the subcommands, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.base.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.bench.common.figures import Figure

PLACE = click.Path(path_type=Path)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
out = click.option("--out", type=PLACE, help="Where to work; default a new folder.")


@click.group()
def bench() -> None:
    """Measure Caption Lab against its peers, in one run on this machine.

    Peers are installed into environments of their own (~/.cache/caption-lab/peers) from the pinned
    files in pipelines/bench/requirements. Every figure is named, and speed is a ratio.
    """


def benchmark(name: str) -> Callable[[Callable[..., list[Figure]]], click.Command]:
    """A subcommand that prints the figures which the decorated function returns."""

    def decorate(measure: Callable[..., list[Figure]]) -> click.Command:
        def run(as_json: bool, **given: Any) -> None:
            from pipelines.bench.common.figures import render

            click.echo(render(measure(**given), as_json))

        run.__doc__ = measure.__doc__
        run.__click_params__ = getattr(measure, "__click_params__", [])  # type: ignore[attr-defined]
        return bench.command(name)(as_json(out(run)))

    return decorate


def pairs_option(required: bool, words: str = "") -> Callable[[Any], Any]:
    """Folders of pictures with texts."""
    words = f"Folder with captions.jsonl and pictures; may be repeated.{words}"
    return click.option(
        "--pairs", "folders", type=PLACE, multiple=True, required=required, help=words
    )


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


@benchmark("select")
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the generated dataset.")
@click.option("--preset", "presets", multiple=True, help="Only this preset; may be repeated.")
def bench_select(out: Path | None, rows: int, presets: tuple[str, ...]) -> list[Figure]:
    """Seconds and memory of every preset and of the report on a million generated rows.

    Beside pandas as DataComp filters, and a plain DuckDB scan of the same columns.
    """
    from pipelines.bench.select.beside_pandas import select_figures

    return select_figures(out, rows, presets)


@benchmark("view")
@click.option(
    "--rows", default="10000,1000000", show_default=True, help="Rows of the generated datasets."
)
@click.option("--width", default=512, show_default=True, help="Numbers of an embedding.")
@click.option("--questions", default=50, show_default=True, help="Of each kind.")
@click.option(
    "--part",
    type=click.Choice(["page", "search", "all"]),
    default="all",
    show_default=True,
    help="What to measure.",
)
def bench_view(out: Path | None, rows: str, width: int, questions: int, part: str) -> list[Figure]:
    """Seconds to the first picture of `caplab view`, its questions, and the search's index.

    The index stands beside faiss's exact search over the same vectors: recall, bytes and time. A
    million rows take some minutes and 4 GB of disk to generate, once a folder.
    """
    from pipelines.bench.view.both import view_figures

    return view_figures(out, [int(size) for size in rows.split(",")], width, questions, part)


@benchmark("download")
@click.option("--images", required=True, type=PLACE, help="Folder of JPEG photographs.")
@click.option("--count", default=5000, show_default=True, help="Pictures to download.")
@click.option("--as-is", is_flag=True, help="Serve the folder's own files, not a mix made of them.")
def bench_download(out: Path | None, images: Path, count: int, as_is: bool) -> list[Figure]:
    """CPU and quality of a stored picture beside img2dataset, at 512 and at 256 px.

    Serves JPEGs of 400 to 1,600 px, made of the photographs in --images, on loopback.
    """
    from pipelines.bench.download.beside_img2dataset import download_figures

    return download_figures(images, out, count, as_is)


@bench.command("duplicates")
@as_json
@out
@click.option(
    "--photographs", multiple=True, type=PLACE, help="Folder of pictures to edit and to search."
)
@click.option("--published", type=PLACE, help="Near-duplicates with manifest.jsonl.")
@click.option("--limit", default=200, show_default=True, help="Photographs to edit; 0 for none.")
@click.option("--seed", default=0, show_default=True, help="Of the edits.")
@click.option("--no-peers", is_flag=True, help="Ours alone.")
@click.option("--flat", is_flag=True, help="Cost and accuracy on flat scenes, instead.")
@click.option("--scale", is_flag=True, help="Time, memory and growth of the searches.")
@click.option(
    "--sizes", default="100000,300000,1000000", show_default=True, help="Samples, with --scale."
)
@click.option(
    "--kinds",
    default="hashes,embeddings,isotropic",
    show_default=True,
    help="Generated data, with --scale.",
)
@click.option("--memory-limit", default="2GB", show_default=True, help="With --scale.")
def bench_duplicates(
    as_json: bool,
    out: Path | None,
    photographs: tuple[Path, ...],
    published: Path | None,
    limit: int,
    seed: int,
    no_peers: bool,
    flat: bool,
    scale: bool,
    sizes: str,
    kinds: str,
    memory_limit: str,
) -> None:
    """Recall of edited photographs, false pairs and cost, beside imagededup and fastdup.

    With --flat its cost on drawn scenes, with --scale how it grows with the dataset instead.
    """
    from pipelines.bench.common.figures import render

    if flat:
        from pipelines.bench.duplicates.flat import flat_figures

        click.echo(render(flat_figures(out), as_json))
        return
    if scale:
        from pipelines.bench.duplicates.scale import scale_figures

        counts = [int(size) for size in sizes.split(",")]
        click.echo(render(scale_figures(out, counts, memory_limit, kinds.split(",")), as_json))
        return
    from pipelines.bench.duplicates.accuracy import PEERS, duplicate_figures
    from pipelines.bench.duplicates.published import published_figures

    if not photographs:
        raise ConfigError(
            "Say --photographs FOLDER (pictures to edit and search), --flat or --scale."
        )
    peers = () if no_peers else tuple(PEERS)
    figures, table = duplicate_figures(photographs, limit, seed, peers, out)
    if published is not None:
        figures += published_figures(published)
    if not as_json:  # the table says the recalls already
        click.echo(table)
        figures[:] = [f for f in figures if not (f.name.count("/") == 3 and "/recall" in f.name)]
    click.echo(render(figures, as_json))


@benchmark("calibration")
@click.option("--scenes", default=200, show_default=True, help="Pictures that are drawn.")
@click.option(
    "--config", type=PLACE, help="YAML of `caplab score`: whose models are calibrated as well."
)
def bench_calibration(out: Path | None, scenes: int, config: Path | None) -> list[Figure]:
    """Scores of files and pictures against what the synthetic world knows of them."""
    from curate.base.settings import load_settings
    from curate.scoring.settings import ScoreSettings
    from pipelines.bench.score.calibration import calibration_figures

    return calibration_figures(scenes, load_settings(ScoreSettings, config, {}))


@benchmark("score")
@pairs_option(required=True)
@click.option("--limit", default=2000, show_default=True, help="Pairs in all.")
@click.option("--gpu", is_flag=True, help="ViT-L/14 in bf16 on this machine's GPU, no peers.")
@click.option(
    "--peak-tflops", type=float, help="With --gpu: the GPU's dense bf16 peak, to print MFU."
)
def bench_score(
    out: Path | None, folders: tuple[Path, ...], limit: int, gpu: bool, peak_tflops: float | None
) -> list[Figure]:
    """CPU a pair and throughput of CLIP scores, beside clip-retrieval and Data-Juicer.

    The same random ViT-S-32 and the same real pairs for everybody, and the bare forward as limit.
    """
    if gpu:
        from pipelines.bench.score.on_gpu import GpuRun, gpu_figures

        return gpu_figures(folders, limit, out, GpuRun(peak_tflops=peak_tflops))
    from pipelines.bench.score.beside_peers import score_figures

    return score_figures(folders, limit, out)


@benchmark("pair-scores")
@click.option("--rows", default=2000, show_default=True, help="URLs of the synthetic web.")
@click.option("--seed", default=0, show_default=True, help="Of the web.")
def bench_pair_scores(out: Path | None, rows: int, seed: int) -> list[Figure]:
    """How well clip_similarity and negCLIPLoss tell wrong texts, where the truth is known.

    Curates a synthetic web with the world's own CLIP. Nothing is timed.
    """
    from pipelines.bench.score.pair_scores import pair_figures

    return pair_figures(out, rows, seed)


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


command = bench
