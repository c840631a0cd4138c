"""`caplab bench select`: every preset, and the report, on a generated dataset of a million rows.

Each selection runs as a user's command would, start-up included. Beside it stand, in processes of
their own and in the same run:

    pandas          DataComp's way (pipelines/bench/select/pandas_filters.py) on files that hold
                    every column it needs, already joined; it writes keys and no funnel, and drops
                    no copies
    DuckDB scan     a process that imports DuckDB and reads once, whole, the columns that the preset
                    reads: the least that any selection over these files must do

Where pandas has the filter, its count must equal the funnel's before copies are dropped: a fast
wrong answer fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from curate.base.errors import CaplabError
from curate.base.files import atomic_path, plain_path
from curate.base.provenance import package_versions
from curate.selection.preset_list import PRESETS
from curate.store.dataset import Dataset
from curate.store.scans import sql_text
from pipelines.bench.common.figures import Figure, Figures, work_folder
from pipelines.bench.common.generate_dataset import Shape, generate, subjects
from pipelines.bench.common.peers import peer_python, peer_version
from pipelines.bench.common.processes import CAPLAB, ProcessCost, run_measured
from pipelines.bench.select.pandas_filters import FILTERS

CLUSTERS = 100
_SCAN = """
import sys, duckdb
connection = duckdb.connect()
for query in sys.argv[1:]:
    connection.execute(query).fetchall()
"""


def select_figures(out: Path | None, rows: int, names: Sequence[str] = ()) -> list[Figure]:
    """Measure the presets (all, or those named) and the report.

    Args:
        out: where the dataset is generated, or lies already; by default a new folder.

    Raises:
        CaplabError: a command failed, or we and pandas select different numbers of samples.
    """
    out = work_folder(out)
    dataset = generate(out / f"generated-{rows}", Shape(rows=rows))
    metadata = joined_metadata(dataset, out / f"metadata-{rows}")
    reference = out / "reference.npy"  # vectors around thirty of the generated subjects
    np.save(reference, subjects(Shape().embedding_width)[:30].astype(np.float32))
    scale = f"{rows // 1_000_000}m" if rows % 1_000_000 == 0 else f"{rows // 1000}k"
    figures: list[Figure] = []
    for name in names or PRESETS:
        figures += _preset(dataset, metadata, reference, name, f"select/{scale}/{name}")
    return [*figures, *_report(dataset, f"report/{scale}")]


def _report(dataset: Dataset, prefix: str) -> Figures:
    """The limit: one plain DuckDB read of every column of the tables samples and scores."""
    figures = Figures(prefix)
    cost = run_measured([*CAPLAB, "report", dataset.directory])
    scan = _scan(dataset, {table: _columns(dataset, table) for table in ("samples", "scores")})
    limit = ("DuckDB reads every column once", scan.wall_seconds)
    figures.add("wall", cost.wall_seconds, "s", limit)
    figures.add("peak_memory", cost.peak_mib, "MiB")
    size = (dataset.directory / "report.html").stat().st_size
    figures.add("size", size / (1 << 20), "MiB", at_most=8)
    return figures


def _preset(dataset: Dataset, metadata: Path, reference: Path, name: str, prefix: str) -> Figures:
    figures = Figures(prefix)
    command = [*CAPLAB, "select", dataset.directory, "--preset", name, "--overwrite"]
    command += ["--preset-columns", "aesthetic_v1=aesthetic"] if name.endswith("-v1") else []
    if any(need.quantity == "near_reference" for need in PRESETS[name].needs):
        command += ["--reference", reference, "--reference-clusters", CLUSTERS]
    # A selection that is stored already would be a no-op.
    dataset.selection_path(name).unlink(missing_ok=True)
    ours = run_measured(command)
    record = dataset.selection_record(name)
    figures.add("selected", record["selected"], "samples")
    memory = None
    if name in FILTERS:
        script, keys = Path(__file__).with_name("pandas_filters.py"), metadata / f"{name}.npy"
        theirs = run_measured([peer_python("pandas"), script, metadata, name, keys])
        _agree(name, int(theirs.output.split()[-1]), record)
        peer = peer_version("pandas")
        figures.add("wall", ours.wall_seconds, "s", (peer, theirs.wall_seconds), at_most=1.0)
        memory = (peer, theirs.peak_mib)
    figures.add("peak_memory", ours.peak_mib, "MiB", memory)
    sql = json.dumps(record["sql"])  # its rules name the columns that they read
    read = {
        table: [column for column in _columns(dataset, table) if column in sql]
        for table in ("samples", "scores")
    }
    read["scores"] = [column for column in read["scores"] if column not in read["samples"]]
    limit = f"DuckDB {package_versions()['duckdb']} scan"
    figures.add("wall_to_scan", ours.wall_seconds, "s", (limit, _scan(dataset, read).wall_seconds))
    return figures


def _agree(name: str, theirs: int, record: dict[str, Any]) -> None:
    ours = record["funnel"][-2 if record["duplicates"] else -1]["left"]
    if ours != theirs:
        raise CaplabError(
            f"{name}: we select {ours:,} samples before copies are dropped and pandas {theirs:,}."
        )


def _columns(dataset: Dataset, table: str) -> list[str]:
    names = pq.read_schema(dataset.table_path(table, dataset.shards()[0])).names
    return [name for name in names if name != "key"]


def _scan(dataset: Dataset, read: dict[str, list[str]]) -> ProcessCost:
    queries = []
    for table, columns in read.items():
        if columns:
            values = ", ".join(f"max({name}), count({name})" for name in columns)
            queries.append(f"SELECT max(key), {values} FROM {dataset.scan(table)}")
    return run_measured([sys.executable, "-c", _SCAN, *queries])


def joined_metadata(dataset: Dataset, folder: Path) -> Path:
    """One Parquet file a shard with samples and scores side by side, stored samples alone."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    wanted = {name for names, _ in FILTERS.values() for name in names}
    names = [
        f"{table}.{name}"
        for table in ("samples", "scores")
        for name in _columns(dataset, table)
        if name in wanted
    ]
    with dataset.connect(["samples", "scores"]) as connection:
        for shard in dataset.shards():
            with atomic_path(folder / f"{shard}.parquet") as temporary:
                connection.execute(
                    f"COPY (SELECT key, {', '.join(names)} FROM samples JOIN scores USING (key) "
                    f"WHERE shard = '{shard}' AND status = 'stored') TO "
                    f"{sql_text(plain_path(temporary))} (FORMAT parquet, COMPRESSION zstd)"
                )
    return folder
