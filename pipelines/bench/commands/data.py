"""Benchmarks of data: downloads, scores, copies, selections, the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from curate.base.errors import ConfigError
from pipelines.bench.commands.group import PLACE, as_json, bench, benchmark, out, pairs_option

if TYPE_CHECKING:
    from pipelines.bench.common.figures import Figure


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
