"""`caplab bench NAME`: one subcommand a benchmark, each with its own options.

Imports happen inside the subcommands, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path

import click

PLACE = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
out = click.option("--out", type=PLACE, help="Where to work; default a new folder.")


@click.group()
def bench() -> None:
    """Measure Caption Lab against its peers, in one run on this machine.

    Peers are installed into environments of their own (~/.cache/caption-lab/peers) from the pinned
    files in pipelines/bench/requirements. Every figure is named, and speed is a ratio.
    """


@bench.command("demo")
@as_json
@out
def bench_demo(as_json: bool, out: Path | None) -> None:
    """Seconds and peak memory of each stage of `caplab demo`."""
    from pipelines.bench.demo import demo_figures
    from pipelines.bench.figures import render

    click.echo(render(demo_figures(out), as_json))


@bench.command("select")
@as_json
@out
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the generated dataset.")
@click.option("--preset", "presets", multiple=True, help="Only this preset; may be repeated.")
def bench_select(as_json: bool, out: Path | None, rows: int, presets: tuple[str, ...]) -> None:
    """Seconds and memory of every preset and of the report on a million generated rows.

    Beside pandas as DataComp filters, and a plain DuckDB scan of the same columns.
    """
    from pipelines.bench.figures import render
    from pipelines.bench.selection import select_figures

    click.echo(render(select_figures(out, rows, list(presets) or None), as_json))


@bench.command("download")
@as_json
@out
@click.option("--images", required=True, type=PLACE, help="Folder of JPEG photographs.")
@click.option("--count", default=5000, show_default=True, help="Pictures to download.")
@click.option("--as-is", is_flag=True, help="Serve the folder's own files, not a mix made of them.")
def bench_download(as_json: bool, out: Path | None, images: Path, count: int, as_is: bool) -> None:
    """CPU and quality of a stored picture beside img2dataset, at 512 and at 256 px.

    Serves JPEGs of 400 to 1,600 px, made of the photographs in --images, on loopback.
    """
    from pipelines.bench.download import download_figures
    from pipelines.bench.figures import render

    click.echo(render(download_figures(images, out, count, as_is), as_json))


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
@click.option("--scale", is_flag=True, help="Time, memory and growth of the searches.")
@click.option(
    "--sizes", default="100000,300000,1000000", show_default=True, help="Samples, with --scale."
)
@click.option(
    "--kinds",
    default="hashes,embeddings,isotropic,pipeline",
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
    scale: bool,
    sizes: str,
    kinds: str,
    memory_limit: str,
) -> None:
    """Recall of edited photographs, false pairs and cost, beside imagededup and fastdup.

    With --scale how the search grows with the dataset instead.
    """
    from curate.base.errors import ConfigError

    if scale:
        from pipelines.bench.duplicates_scale import scale_figures
        from pipelines.bench.figures import render

        counts = tuple(int(size) for size in sizes.split(","))
        figures = scale_figures(out, counts, memory_limit, tuple(kinds.split(",")))
        click.echo(render(figures, as_json))
        return
    from pipelines.bench.duplicates_accuracy import PEERS, print_duplicates

    if not photographs:
        raise ConfigError("Say --photographs FOLDER (pictures to edit and search) or --scale.")
    peers = () if no_peers else tuple(PEERS)
    click.echo(print_duplicates(photographs, published, limit, seed, peers, out, as_json))


@bench.command("score")
@as_json
@out
@click.option(
    "--pairs",
    "folders",
    type=PLACE,
    multiple=True,
    required=True,
    help="Folder with captions.jsonl and pictures; may be repeated.",
)
@click.option("--limit", default=2000, show_default=True, help="Pairs in all.")
@click.option("--gpu", is_flag=True, help="ViT-L/14 in bf16 on this machine's GPU, no peers.")
@click.option(
    "--peak-tflops", type=float, help="With --gpu: the GPU's dense bf16 peak, to print MFU."
)
def bench_score(
    as_json: bool,
    out: Path | None,
    folders: tuple[Path, ...],
    limit: int,
    gpu: bool,
    peak_tflops: float | None,
) -> None:
    """CPU a pair and throughput of CLIP scores, beside clip-retrieval and Data-Juicer.

    The same random ViT-S-32 and the same real pairs for everybody, and the bare forward as limit.
    """
    from pipelines.bench.figures import render

    if gpu:
        from pipelines.bench.score_gpu import GpuRun, gpu_figures

        run = GpuRun(peak_tflops=peak_tflops)
        click.echo(render(gpu_figures(folders, limit, out, run), as_json))
        return
    from pipelines.bench.score import score_figures

    click.echo(render(score_figures(folders, limit, out, _say), as_json))


@bench.command("caption")
@as_json
@out
@click.option(
    "--part",
    type=click.Choice(["transformers", "http", "all"]),
    default="transformers",
    show_default=True,
    help="Which engine to measure.",
)
@click.option(
    "--pairs",
    "folders",
    type=PLACE,
    multiple=True,
    help="Folder with captions.jsonl and pictures; may be repeated. Without: generated pictures.",
)
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
    as_json: bool,
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
) -> None:
    """Pictures a second from shards to captions, beside a bare model.generate loop.

    The models have random weights and no end token, so every caption has the same length. The http
    part measures the client alone, on a server of its own that answers after 100 ms, beside Ray's
    HTTP processor.
    """
    from pipelines.bench.figures import Figure, render

    figures: list[Figure] = []
    if part in ("transformers", "all"):
        from pipelines.bench.caption import CaptionRun, caption_figures

        swept = batch_sizes or ("32,64,128,256" if gpu else "8,16,32,64")
        run = CaptionRun(
            preset=preset or ("qwen2.5-vl-3b" if gpu else "small"),
            device="cuda" if gpu else "cpu",
            dtype="bfloat16" if gpu else "float32",
            tokens=tokens,
            batch_sizes=tuple(int(size) for size in swept.split(",")),
            whole_command=not gpu,
        )
        figures += caption_figures(folders, limit, out, run, _say)
    if part in ("http", "all"):
        from pipelines.bench.caption_http import HttpRun, http_figures

        run_http = HttpRun(
            requests=requests,
            resized_requests=max(1, requests // 4),
            ray_requests=0 if no_peers else HttpRun().ray_requests,
        )
        figures += http_figures(folders, limit, out and out / "http", run_http, _say)
    click.echo(render(figures, as_json))


@bench.command("captioner-fit")
@as_json
@out
@click.option("--pairs", default=3000, show_default=True, help="Pictures with clean captions.")
@click.option("--noisy", default=20_000, show_default=True, help="Alt texts; 0 for none.")
@click.option("--held-out", default=1000, show_default=True, help="Scenes to caption.")
@click.option("--seed", default=0, show_default=True, help="Of the pairs and of the fit.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--config", type=PLACE, help="YAML of fit settings that differ from the bench's.")
def bench_captioner_fit(
    as_json: bool,
    out: Path | None,
    pairs: int,
    noisy: int,
    held_out: int,
    seed: int,
    threads: int,
    config: Path | None,
) -> None:
    """Precision and recall of captioners fitted on the world, checkpoints and all.

    Runs `caplab captioner fit` from nothing on made pairs, then captions held-out scenes.
    """
    from pipelines.bench.captioner_fit import captioner_fit_figures
    from pipelines.bench.figures import render

    figures = captioner_fit_figures(out, pairs, noisy, held_out, seed, threads, config, _say)
    click.echo(render(figures, as_json))


@bench.command("killed-captions")
@as_json
@out
@click.option(
    "--pairs",
    "folders",
    type=PLACE,
    multiple=True,
    required=True,
    help="Folder with captions.jsonl and pictures, all below one parent; may be repeated.",
)
@click.option("--limit", default=2000, show_default=True, help="Pictures in all, at least.")
def bench_killed_captions(
    as_json: bool, out: Path | None, folders: tuple[Path, ...], limit: int
) -> None:
    """Kill `caplab recaption` twice on real photographs and count the rows that it ends with.

    In process, and over HTTP against `caplab serve-captioner`. Nothing is timed.
    """
    from pipelines.bench.figures import render
    from pipelines.bench.killed_captions import killed_caption_figures

    click.echo(render(killed_caption_figures(folders, limit, out), as_json))


def _say(words: str) -> None:
    click.echo(words, err=True)
