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
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.base.errors import CaplabError
from curate.store.dataset import Dataset
from pipelines.bench.figures import Figure
from pipelines.bench.loopback import serving
from pipelines.bench.peers import peer_python, peer_version
from pipelines.bench.photo_mix import jpegs_below, make_mix
from pipelines.bench.processes import ProcessCost, run_measured

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
    work = out or Path(tempfile.mkdtemp(prefix="caplab-bench-"))
    if as_is:
        files = _linked(jpegs_below(images)[:count], work / "as-is")
    else:
        files = make_mix(images, work / "mix", count)
    peer = f"img2dataset {peer_version('img2dataset', 'img2dataset')}"
    figures: list[Figure] = []
    with serving(files[0].parent) as base_url:
        urls = work / "urls.parquet"
        names = [path.name for path in files]
        texts = [f"picture {name}" for name in names]
        table = pa.table({"url": [f"{base_url}/{name}" for name in names], "text": texts})
        pq.write_table(table, urls)
        for size in SIZES:
            theirs_dir, ours_dir = work / f"img2dataset-{size}", work / f"caplab-{size}"
            for folder in (theirs_dir, ours_dir):
                shutil.rmtree(folder, ignore_errors=True)
            theirs = _img2dataset(urls, theirs_dir, size, len(files))
            ours = _caplab(urls, ours_dir, size, len(files))
            figures += _costs(size, len(files), ours, theirs, peer)
            figures += _quality(size, files, _ours(ours_dir), _theirs(theirs_dir), peer)
    return figures


def _caplab(urls: Path, out: Path, size: int, count: int) -> ProcessCost:
    command = [sys.executable, "-m", "pipelines.cli", "curate", str(urls), "--out", str(out)]
    options = {
        "--until": "download",
        "--image-size": size,
        "--resize-mode": "keep_ratio_largest",
        "--encode-quality": _QUALITY,
        "--workers": _PROCESSES,
        "--threads": _THREADS,
        "--host-connections": _THREADS,
        "--rows-per-shard": -(-count // _SHARDS),
    }
    command += [str(part) for pair in options.items() for part in pair]
    return run_measured([*command, "--allow-private-addresses"], timeout=60 * _MINUTES)


def _img2dataset(urls: Path, out: Path, size: int, count: int) -> ProcessCost:
    script = peer_python("img2dataset").parent / "img2dataset"
    options = {
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
    command = [str(script), *(f"--{name}={value}" for name, value in options.items())]
    env = {"NO_ALBUMENTATIONS_UPDATE": "1"}
    return run_measured(command, env=env, cwd=urls.parent, timeout=60 * _MINUTES)


def _costs(
    size: int, count: int, ours: ProcessCost, theirs: ProcessCost, peer: str
) -> list[Figure]:
    name = f"download/{size}"
    return [
        Figure(
            f"{name}/cpu_per_image",
            1000 * ours.cpu_seconds / count,
            "ms",
            peer,
            1000 * theirs.cpu_seconds / count,
            goal=0.5,
        ),
        Figure(
            f"{name}/images_per_second",
            count / ours.wall_seconds,
            f"1/s on {os.cpu_count()} cores",
            peer,
            count / theirs.wall_seconds,
            goal=2.0,
            better="higher",
        ),
        Figure(
            f"{name}/peak_memory",
            ours.peak_memory_bytes >> 20,
            "MiB",
            peer,
            theirs.peak_memory_bytes >> 20,
        ),
    ]


# ---- quality ------------------------------------------------------------------------------------


def _quality(
    size: int, files: list[Path], ours: dict[str, bytes], theirs: dict[str, bytes], peer: str
) -> list[Figure]:
    names = {path.name: path for path in files}
    for who, stored in (("caplab", ours), ("img2dataset", theirs)):
        if stored.keys() != names.keys():
            raise CaplabError(f"{who} stored {len(stored)} of {len(files)} pictures at {size} px.")
    judged = files[:: max(1, len(files) // _JUDGED)]
    mine, peers = ([_psnr(path, stored[path.name]) for path in judged] for stored in (ours, theirs))
    bytes_each = [sum(map(len, stored.values())) / len(stored) / 1000 for stored in (ours, theirs)]
    name = f"download/{size}"
    return [
        Figure(f"{name}/psnr", _mean(mine), "dB", peer, _mean(peers), goal=1.0, better="higher"),
        Figure(
            f"{name}/psnr_5th_percentile",
            float(np.percentile(mine, 5)),
            "dB",
            peer,
            float(np.percentile(peers, 5)),
        ),
        Figure(f"{name}/bytes_per_image", bytes_each[0], "kB", peer, bytes_each[1]),
    ]


def _psnr(original: Path, stored: bytes) -> float:
    """dB between a stored picture and a full decode, scaled by Lanczos to its size."""
    with Image.open(io.BytesIO(stored)) as image:
        found = np.asarray(image.convert("RGB"), np.float32)
        size = image.size
    with Image.open(original) as full:
        wanted = full.convert("RGB")
    if wanted.size != size:
        wanted = wanted.resize(size, Image.Resampling.LANCZOS)
    error = float(((found - np.asarray(wanted, np.float32)) ** 2).mean())
    return min(_MOST_PSNR, 10 * float(np.log10(255**2 / max(error, 1e-9))))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _ours(directory: Path) -> dict[str, bytes]:
    """File name -> stored picture."""
    dataset = Dataset.open(directory)
    urls: dict[str, str] = {}
    for shard in dataset.shards():
        table = dataset.read_table("samples", shard, columns=["key", "url"])
        urls |= dict(
            zip(table.column("key").to_pylist(), table.column("url").to_pylist(), strict=True)
        )
    tars = [dataset.shard_path(shard) for shard in dataset.shards()]
    return {urls[key].rsplit("/", 1)[-1]: content for key, content in _pictures(tars)}


def _theirs(directory: Path) -> dict[str, bytes]:
    urls: dict[str, str] = {}
    for path in directory.glob("*.parquet"):
        table = pq.read_table(path, columns=["key", "url"])
        urls |= dict(
            zip(table.column("key").to_pylist(), table.column("url").to_pylist(), strict=True)
        )
    tars = sorted(directory.glob("*.tar"))
    return {urls[key].rsplit("/", 1)[-1]: content for key, content in _pictures(tars)}


def _pictures(tars: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                if member.name.endswith(".jpg") and content is not None:
                    yield member.name.removesuffix(".jpg"), content.read()


def _linked(files: list[Path], folder: Path) -> list[Path]:
    """The files under numbered names in one folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.symlink_to(file.resolve())
    return paths
