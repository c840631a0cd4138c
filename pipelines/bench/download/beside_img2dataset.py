"""`caplab bench download`: what a picture costs us and img2dataset, at 512 and at 256 px.

Both run as a user would run them, as commands in an environment of their own, on the same JPEGs
behind the same loopback server, with two processes, 32 threads each, `keep_ratio_largest`, JPEG
quality 95, sha256 of the originals and WebDataset shards. CPU is that of the whole process tree
from start to end (Ray and every import included), the server's not counted, though it shares the
machine's cores.

Quality is the PSNR of the stored picture against a full decode scaled by Lanczos to the same size.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.base.errors import CaplabError
from curate.store.dataset import Dataset
from pipelines.bench.common.figures import Figure, Figures, work_folder
from pipelines.bench.common.loopback import serving
from pipelines.bench.common.peers import peer_python, peer_version
from pipelines.bench.common.processes import CAPLAB, ProcessCost, options, run_measured
from pipelines.bench.download.photo_mix import JPEGS, make_mix
from pipelines.make_weights.photographs import photograph_files

SIZES = (512, 256)
_PROCESSES, _THREADS, _QUALITY = 2, 32, 95
_SHARDS = 4  # two a process
_JUDGED = 400  # pictures whose PSNR is measured
_MOST_PSNR = 60.0  # dB; what is closer counts as this
_MINUTES = 30


def download_figures(
    images: Path, out: Path | None, count: int = 5000, as_is: bool = False
) -> list[Figure]:
    """Run both downloaders at both sizes.

    Args:
        images: folder of JPEGs.
        out: where to work and to keep the mix of pictures; a new folder by default.
        as_is: serve the folder's files as they are, instead of a mix made of them.

    Raises:
        ConfigError: no JPEGs in `images`.
        CaplabError: a downloader failed, or stored fewer pictures than there are.
    """
    work = work_folder(out)
    if as_is:
        files = _linked(photograph_files([images], JPEGS)[:count], work / "as-is")
    else:
        files = make_mix(images, work / "mix", count)
    peer = peer_version("img2dataset")
    figures: list[Figure] = []
    with serving(files[0].parent) as base_url:
        urls = work / "urls.parquet"
        texts = [f"picture {path.name}" for path in files]
        table = pa.table({"url": [f"{base_url}/{path.name}" for path in files], "text": texts})
        pq.write_table(table, urls)
        for size in SIZES:
            theirs_dir, ours_dir = work / f"img2dataset-{size}", work / f"caplab-{size}"
            for folder in (theirs_dir, ours_dir):
                shutil.rmtree(folder, ignore_errors=True)
            theirs = _img2dataset(urls, theirs_dir, size, len(files))
            ours = _caplab(urls, ours_dir, size, len(files))
            figures += _costs(size, len(files), ours, theirs, peer)
            dataset = Dataset.open(ours_dir)
            samples = [dataset.table_path("samples", shard) for shard in dataset.shards()]
            tars = [dataset.shard_path(shard) for shard in dataset.shards()]
            stored = _stored(samples, tars)
            peers = _stored([*theirs_dir.glob("*.parquet")], [*theirs_dir.glob("*.tar")])
            figures += _quality(size, files, stored, peers, peer)
    return figures


def _caplab(urls: Path, out: Path, size: int, count: int) -> ProcessCost:
    settings = {
        "out": out,
        "until": "download",
        "image_size": size,
        "resize_mode": "keep_ratio_largest",
        "encode_quality": _QUALITY,
        "workers": _PROCESSES,
        "threads": _THREADS,
        "host_connections": _THREADS,
        "rows_per_shard": -(-count // _SHARDS),
    }
    command = [*CAPLAB, "curate", urls, *options(settings), "--allow-private-addresses"]
    return run_measured(command, timeout=60 * _MINUTES)


def _img2dataset(urls: Path, out: Path, size: int, count: int) -> ProcessCost:
    settings = {
        "url_list": urls,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "text",
        "output_folder": out,
        "output_format": "webdataset",
        "processes_count": _PROCESSES,
        "thread_count": _THREADS,
        "image_size": size,
        "resize_mode": "keep_ratio_largest",
        "resize_only_if_bigger": True,
        "encode_format": "jpg",
        "encode_quality": _QUALITY,
        "compute_hash": "sha256",
        "number_sample_per_shard": -(-count // _SHARDS),
        "enable_wandb": False,
    }
    script = peer_python("img2dataset").parent / "img2dataset"
    command = [script, *(f"--{name}={value}" for name, value in settings.items())]
    env = {"NO_ALBUMENTATIONS_UPDATE": "1"}
    return run_measured(command, env=env, cwd=urls.parent, timeout=60 * _MINUTES)


def _costs(size: int, count: int, ours: ProcessCost, theirs: ProcessCost, peer: str) -> Figures:
    figures = Figures(f"download/{size}")
    cpu, peers = (1000 * cost.cpu_seconds / count for cost in (ours, theirs))
    figures.add("cpu_per_image", cpu, "ms", (peer, peers), at_most=0.5)
    rate, peers = (count / cost.wall_seconds for cost in (ours, theirs))
    unit = f"1/s on {os.cpu_count()} cores"
    figures.add("images_per_second", rate, unit, (peer, peers), at_least=2.0)
    figures.add("peak_memory", ours.peak_mib, "MiB", (peer, theirs.peak_mib))
    return figures


# ---- quality ------------------------------------------------------------------------------------


def _quality(
    size: int, files: list[Path], ours: dict[str, bytes], theirs: dict[str, bytes], peer: str
) -> Figures:
    for who, stored in (("caplab", ours), ("img2dataset", theirs)):
        if stored.keys() != {path.name for path in files}:
            raise CaplabError(f"{who} stored {len(stored)} of {len(files)} pictures at {size} px.")
    judged = files[:: max(1, len(files) // _JUDGED)]
    mine, peers = ([psnr(path, some[path.name]) for path in judged] for some in (ours, theirs))
    figures = Figures(f"download/{size}")
    figures.add("psnr", float(np.mean(mine)), "dB", (peer, float(np.mean(peers))), at_least=1.0)
    low, theirs_low = (float(np.percentile(values, 5)) for values in (mine, peers))
    figures.add("psnr_5th_percentile", low, "dB", (peer, theirs_low))
    kb, theirs_kb = (sum(map(len, some.values())) / len(some) / 1000 for some in (ours, theirs))
    figures.add("bytes_per_image", kb, "kB", (peer, theirs_kb))
    return figures


def psnr(original: Path, stored: bytes) -> float:
    """dB between a stored picture and a full decode, scaled by Lanczos to its size."""
    with Image.open(io.BytesIO(stored)) as image:
        found, size = np.asarray(image.convert("RGB"), np.float32), image.size
    with Image.open(original) as full:
        wanted = full.convert("RGB")
    if wanted.size != size:
        wanted = wanted.resize(size, Image.Resampling.LANCZOS)
    error = float(((found - np.asarray(wanted, np.float32)) ** 2).mean())
    return min(_MOST_PSNR, 10 * float(np.log10(255**2 / max(error, 1e-9))))


def _stored(tables: list[Path], tars: list[Path]) -> dict[str, bytes]:
    """File name -> stored picture, of tables with key and url and of WebDataset tars."""
    rows = [
        row for path in tables for row in pq.read_table(path, columns=["key", "url"]).to_pylist()
    ]
    names = {row["key"]: row["url"].rsplit("/", 1)[-1] for row in rows}
    pictures = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if member.name.endswith(".jpg") and content is not None:
                    pictures[names[member.name.removesuffix(".jpg")]] = content.read()
    return pictures


def _linked(files: list[Path], folder: Path) -> list[Path]:
    """The files under numbered names in one folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.symlink_to(file.resolve())
    return paths
