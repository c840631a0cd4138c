"""Recaption real photographs with the command killed twice on the way, in process and over HTTP.

In process the demo's captioner writes them (it knows scenes of coloured shapes and nothing of
photographs: the captions are nonsense, and what is counted is rows), over HTTP a scripted server.
For each engine the same command is killed with SIGKILL when a third and when two thirds of the
captions are on the disk, the second time with all of its workers, and then run to its end; beside
it an unbroken run of a copy of the dataset.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import CaplabError
from curate.store.contract import CAPTIONS_VOLATILE
from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.loopback import slow_captioner
from pipelines.bench.common.packed_pictures import pack_pairs
from pipelines.bench.common.processes import CAPLAB, options, run_measured
from pipelines.world import weights

KINDS = ("short", "descriptive")
SAMPLES_PER_IMAGE = 2
KILL_SHARES = (1 / 3, 2 / 3)
"""Shares of the captions on the disk at which the run is killed."""
_ROUNDING = 2e-4
_PATIENCE_SECONDS = 1800.0
_ID = ("key", "kind", "sample_index")


def killed_caption_figures(folders: Sequence[Path], limit: int, out: Path | None) -> Figures:
    """Rows missing, twofold and different after two kills, for both engines.

    Args:
        folders: with captions.jsonl and pictures, below one parent.
    """
    work = work_folder(out)
    dataset = pack_pairs(folders, limit, work / "photographs", 500)
    figures = Figures("killed_captions")
    _add(figures, "transformers", dataset, str(weights.captioner_dir()), work)
    with slow_captioner(0.02, telling=True) as port:
        _add(figures, "http", dataset, f"http://127.0.0.1:{port}/v1", work)
    return figures


def _add(figures: Figures, engine: str, source: Dataset, captioner: str, work: Path) -> None:
    rows = {}
    kills = 0
    keys = source.connect().execute("SELECT key FROM samples WHERE status = 'stored'").fetchall()
    wanted = set(product((str(key) for (key,) in keys), KINDS, range(SAMPLES_PER_IMAGE)))
    for how, shares in (("unbroken", ()), ("killed", KILL_SHARES)):
        directory = work / f"{engine}-{how}"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(source.directory, directory)
        dataset, command = Dataset.open(directory), _command(directory, captioner)
        for number, share in enumerate(shares):
            kills += _kill_at(command, directory, int(share * len(wanted)), workers_too=number > 0)
        run_measured(command)
        rows[how] = _captions(dataset)
    found = rows["killed"]
    unbroken = {_id(row): row for row in rows["unbroken"]}
    ids = [_id(row) for row in found]
    different = sum(not _alike(row, unbroken.get(_id(row), {})) for row in found)
    status = [row["status"] for row in found]
    figures.add(f"{engine}/pictures", len(keys), "pictures")
    figures.add(f"{engine}/kills", kills, "SIGKILL", at_least=len(KILL_SHARES))
    figures.add(f"{engine}/captions", len(found), "rows", ("asked for", len(wanted)))
    figures.add(f"{engine}/missing", len(wanted - set(ids)), "rows", at_most=0)
    figures.add(f"{engine}/twofold", len(ids) - len(set(ids)), "rows", at_most=0)
    figures.add(f"{engine}/not_asked_for", len(set(ids) - wanted), "rows", at_most=0)
    figures.add(f"{engine}/unlike_an_unbroken_run", different, "rows", at_most=0)
    figures.add(f"{engine}/failed", status.count("failed"), "rows")
    figures.add(f"{engine}/rejected", status.count("rejected"), "rows")


def _command(directory: Path, captioner: str) -> list[object]:
    settings = {
        "captioner": captioner,
        "kinds": ",".join(KINDS),
        "samples_per_image": SAMPLES_PER_IMAGE,
        "temperature": 0.7,
        "checkpoint_rows": 256,
        "workers": 2,
    }
    return [*CAPLAB, "recaption", directory, *options(settings)]


def _kill_at(command: Sequence[object], directory: Path, rows: int, workers_too: bool) -> int:
    """Start the command and SIGKILL it when `rows` captions are on the disk; 1 if it was killed.

    Args:
        workers_too: kill every process that it started as well, Ray's among them.
    """
    driver = subprocess.Popen(tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _rows_on_disk(directory) < rows:
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


def _rows_on_disk(directory: Path) -> int:
    """Captions in parts and in finished tables; a row may count twice while a shard finishes."""
    rows = 0
    for root in (directory / ".scratch", directory / "tables"):
        for path in root.glob("captions/*/**/[!.]*.parquet"):
            # A part disappears when its shard is finished.
            with contextlib.suppress(FileNotFoundError):
                rows += pq.read_metadata(path).num_rows
    return rows


def _captions(dataset: Dataset) -> list[dict[str, Any]]:
    tables = [
        dataset.read_table("captions", shard, source).drop_columns(list(CAPTIONS_VOLATILE))
        for source in dataset.caption_sources()
        if source != "alt"
        for shard in dataset.shards()
        if dataset.has_shard("captions", shard, source)
    ]
    return pa.concat_tables(tables).to_pylist()


def _id(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _ID)


def _alike(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows are equal; cosines up to the rounding of batched products."""
    return row.keys() == other.keys() and all(
        abs(value - other[name]) < _ROUNDING
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in row.items()
    )
