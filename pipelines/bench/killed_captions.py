"""Recaption real photographs with the command killed twice on the way, in process and over HTTP.

The demo's captioner writes them (it knows scenes of coloured shapes and nothing of photographs:
the captions are nonsense, and what is counted is rows). For each engine the same command is killed
with SIGKILL when a third and when two thirds of the captions are on the disk, the second time with
all of its workers, and then run to its end; beside it an unbroken run of a copy of the dataset.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp.client_exceptions import ClientError

from curate.base.errors import CaplabError
from curate.store.dataset import CAPTIONS_VOLATILE, Dataset
from pipelines.bench.figures import Figure
from pipelines.bench.serve_pairs import write_url_list
from pipelines.children import tied
from pipelines.world import weights
from pipelines.world.serve import serve
from recaption.engines.http.engine import Server
from recaption.engines.http.models import served_model

KINDS = ("short", "descriptive")
SAMPLES_PER_IMAGE = 2
KILL_SHARES = (1 / 3, 2 / 3)
"""Shares of the captions on the disk at which the run is killed."""
_ROUNDING = 2e-4
_PATIENCE_SECONDS = 1800.0
_ID = ("key", "kind", "sample_index")

CaptionId = tuple[str, str, int]


def killed_caption_figures(folders: Sequence[Path], limit: int, out: Path | None) -> list[Figure]:
    """Rows missing, twofold and different after two kills, for both engines.

    Args:
        folders: with captions.jsonl and pictures, below one parent.
        limit: pictures in all, about.
        out: where to work; None takes a new temporary folder.
    """
    work = Path(tempfile.mkdtemp(prefix="caplab-")) if out is None else out
    work.mkdir(parents=True, exist_ok=True)
    dataset = _curated([folder.resolve() for folder in folders], limit, work)
    figures = _engine_figures("transformers", dataset, str(weights.captioner_dir()), work)
    with _served_captioner() as address:
        figures += _engine_figures("http", dataset, address, work)
    return figures


def _engine_figures(name: str, source: Dataset, captioner: str, work: Path) -> list[Figure]:
    unbroken, killed = (_copy(source, work / f"{name}-{how}") for how in ("unbroken", "killed"))
    _finish(_command(unbroken, captioner))
    keys = unbroken.connect().execute("SELECT key FROM samples WHERE status = 'stored'").fetchall()
    wanted = set(product((str(key) for (key,) in keys), KINDS, range(SAMPLES_PER_IMAGE)))
    command = _command(killed, captioner)
    kills = 0
    for number, share in enumerate(KILL_SHARES):
        kills += _kill_at(command, killed, int(share * len(wanted)), workers_too=number > 0)
    _finish(command)
    expected, found = _captions(unbroken), _captions(killed)
    ids = _ids(found)
    unbroken_rows = dict(zip(_ids(expected), expected.to_pylist(), strict=True))
    different = sum(
        not _alike(row, unbroken_rows.get(name, {}))
        for name, row in zip(ids, found.to_pylist(), strict=True)
    )
    prefix = f"killed_captions/{name}"
    return [
        Figure(f"{prefix}/pictures", len(keys), "pictures"),
        Figure(f"{prefix}/kills", kills, "SIGKILL", goal=len(KILL_SHARES), better="higher"),
        Figure(f"{prefix}/captions", found.num_rows, "rows", "asked for", len(wanted)),
        Figure(f"{prefix}/missing", len(wanted - set(ids)), "rows", goal=0),
        Figure(f"{prefix}/twofold", len(ids) - len(set(ids)), "rows", goal=0),
        Figure(f"{prefix}/not_asked_for", len(set(ids) - wanted), "rows", goal=0),
        Figure(f"{prefix}/unlike_an_unbroken_run", different, "rows", goal=0),
        Figure(f"{prefix}/failed", _with_status(found, "failed"), "rows"),
        Figure(f"{prefix}/rejected", _with_status(found, "rejected"), "rows"),
    ]


# ---- the dataset and the server -----------------------------------------------------------------


def _curated(folders: list[Path], limit: int, work: Path) -> Dataset:
    """The photographs, downloaded over loopback HTTP; no scores are needed."""
    directory = work / "photographs"
    with serve(folders[0].parent) as base_url:
        urls = work / "urls.parquet"
        write_url_list(folders, base_url, folders[0].parent, urls)
        rows = pq.read_table(urls)
        pq.write_table(rows.take(list(range(0, len(rows), max(1, len(rows) // limit)))), urls)
        options = ["--until", "download", "--image-size", "256", "--rows-per-shard", "500"]
        command = ["curate", str(urls), "--out", str(directory), *options]
        _finish([sys.executable, "-m", "pipelines.cli", *command, "--allow-private-addresses"])
    return Dataset.open(directory)


def _copy(dataset: Dataset, directory: Path) -> Dataset:
    if directory.exists():
        shutil.rmtree(directory)
    shutil.copytree(dataset.directory, directory)
    return Dataset.open(directory)


@contextlib.contextmanager
def _served_captioner() -> Iterator[str]:
    """`caplab serve-captioner` with the demo's captioner; yields its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["serve-captioner", str(weights.captioner_dir()), "--port", str(port)]
    server = subprocess.Popen(
        tied([sys.executable, "-m", "pipelines.cli", *command]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}/v1"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                served_model(Server(address))
                break
            except (CaplabError, ClientError):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


# ---- running and killing ------------------------------------------------------------------------


def _command(dataset: Dataset, captioner: str) -> list[str]:
    options = {
        "--captioner": captioner,
        "--kinds": ",".join(KINDS),
        "--samples-per-image": str(SAMPLES_PER_IMAGE),
        "--temperature": "0.7",
        "--checkpoint-rows": "256",
        "--workers": "2",
    }
    flat = [part for pair in options.items() for part in pair]
    return [sys.executable, "-m", "pipelines.cli", "recaption", str(dataset.directory), *flat]


def _finish(command: Sequence[str]) -> None:
    done = subprocess.run(tied(command), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise CaplabError(f"{' '.join(command[1:])} ended with {done.returncode}:\n{tail}")


def _kill_at(command: Sequence[str], dataset: Dataset, rows: int, workers_too: bool) -> int:
    """Start the command and SIGKILL it when `rows` captions are on the disk; 1 if it was killed.

    Args:
        workers_too: kill every process that it started as well, Ray's among them.
    """
    driver = subprocess.Popen(tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _rows_on_disk(dataset) < rows:
        if driver.poll() is not None:
            return 0
        if time.monotonic() > deadline:
            driver.kill()
            raise CaplabError(f"{rows} captions did not come within {_PATIENCE_SECONDS:.0f} s.")
        time.sleep(0.05)
    started = psutil.Process(driver.pid).children(recursive=True) if workers_too else []
    os.kill(driver.pid, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait()
    return 1


def _rows_on_disk(dataset: Dataset) -> int:
    """Captions in parts and in finished tables; a row may count twice while a shard finishes."""
    rows = 0
    for root in (dataset.directory / ".scratch", dataset.directory / "tables"):
        for path in root.glob("captions/*/**/[!.]*.parquet"):
            # A part disappears when its shard is finished.
            with contextlib.suppress(FileNotFoundError):
                rows += pq.read_metadata(path).num_rows
    return rows


# ---- what is there ------------------------------------------------------------------------------


def _captions(dataset: Dataset) -> pa.Table:
    tables = [
        dataset.read_table("captions", shard, source).drop_columns(list(CAPTIONS_VOLATILE))
        for source in dataset.caption_sources()
        if source != "alt"
        for shard in dataset.shards()
        if dataset.has_shard("captions", shard, source)
    ]
    order = [(name, "ascending") for name in _ID]
    return pa.concat_tables(tables).sort_by(order)


def _ids(captions: pa.Table) -> list[CaptionId]:
    return list(zip(*(captions.column(name).to_pylist() for name in _ID), strict=True))


def _alike(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows are equal; cosines up to the rounding of batched products."""
    if row.keys() != other.keys():
        return False
    return all(
        abs(value - other[name]) < _ROUNDING
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in row.items()
    )


def _with_status(captions: pa.Table, status: str) -> int:
    return captions.column("status").to_pylist().count(status)
