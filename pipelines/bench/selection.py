"""`caplab bench select`: every preset, and the report, on a generated dataset of a million rows.

Each selection runs as a user's command would, start-up included. Beside it stand, in processes of
their own and in the same run:

    pandas          DataComp's way (pipelines/bench/pandas_filters.py) on files that hold every
                    column it needs, already joined; it writes keys and no funnel, drops no copies
    DuckDB scan     a process that imports DuckDB and reads once, whole, the columns that the preset
                    reads: the least that any selection over these files must do

Where pandas has the filter, its count must equal the funnel's before copies are dropped: a fast
wrong answer fails.

(A module named `select` here would hide Python's own from the scripts that peers run.)
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from curate.base.errors import CaplabError
from curate.base.files import atomic_path, plain_path
from curate.base.provenance import package_versions
from curate.selection.preset_list import PRESETS
from curate.store.dataset import Dataset, sql_text
from pipelines.bench.figures import Figure
from pipelines.bench.generate_dataset import Shape, generate
from pipelines.bench.pandas_filters import FILTERS
from pipelines.bench.peers import peer_python, peer_version
from pipelines.bench.processes import ProcessCost, run_measured

CLUSTERS = 100
_CAPLAB = [sys.executable, "-m", "pipelines.cli"]
_MIB = 1 << 20

_SCAN = """
import sys, duckdb
connection = duckdb.connect()
for query in sys.argv[1:]:
    connection.execute(query).fetchall()
"""


def select_figures(
    out: Path | None, rows: int = 1_000_000, names: list[str] | None = None
) -> list[Figure]:
    """Measure the presets (all, or those named) and the report.

    Args:
        out: where the dataset is generated, or lies already; by default a new folder.

    Raises:
        CaplabError: a command failed, or we and pandas select different numbers of samples.
    """
    out = out or Path(tempfile.mkdtemp(prefix="caplab-bench-"))
    dataset = generate(out / f"generated-{rows}", Shape(rows=rows))
    metadata = _joined_metadata(dataset, out / f"metadata-{rows}")
    reference = _reference(out / "reference.npy")
    scale = f"{rows // 1_000_000}m" if rows % 1_000_000 == 0 else f"{rows // 1000}k"
    figures: list[Figure] = []
    for name in names or list(PRESETS):
        figures += _preset_figures(dataset, metadata, reference, name, f"select/{scale}")
    return [*figures, *report_figures(dataset, f"report/{scale}")]


def report_figures(dataset: Dataset, prefix: str) -> list[Figure]:
    """Seconds, peak memory and size of `caplab report` on a dataset.

    The limit: one plain DuckDB read of every column of the tables samples and scores.
    """
    cost = run_measured([*_CAPLAB, "report", dataset.directory])
    samples, scores = (_columns(dataset, table) for table in ("samples", "scores"))
    scan = _scan(dataset, samples, scores)
    size = (dataset.directory / "report.html").stat().st_size
    return [
        Figure(f"{prefix}/wall", round(cost.wall_seconds, 2), "s", "DuckDB reads every column once",
               round(scan.wall_seconds, 2)),
        Figure(f"{prefix}/peak_memory", cost.peak_memory_bytes // _MIB, "MiB"),
        Figure(f"{prefix}/size", round(size / _MIB, 2), "MiB", goal=8),
    ]  # fmt: skip


def _preset_figures(
    dataset: Dataset, metadata: Path, reference: Path, name: str, prefix: str
) -> list[Figure]:
    command = [*_CAPLAB, "select", dataset.directory, "--preset", name, "--overwrite"]
    command += ["--preset-columns", "aesthetic_v1=aesthetic"] if name.endswith("-v1") else []
    if any(need.quantity == "near_reference" for need in PRESETS[name].needs):
        command += ["--reference", reference, "--reference-clusters", str(CLUSTERS)]
    # A selection that is stored already would be a no-op.
    dataset.selection_path(name).unlink(missing_ok=True)
    ours = run_measured([str(part) for part in command])
    record = dataset.selection_record(name)
    figures = [
        Figure(f"{prefix}/{name}/selected", record["selected"], "samples"),
    ]
    wall = round(ours.wall_seconds, 2)
    scan = _scan(dataset, *_read_columns(dataset, record))
    if name in FILTERS:
        keys = metadata / f"{name}.npy"
        script = Path(__file__).with_name("pandas_filters.py")
        theirs = run_measured([peer_python("pandas"), script, metadata, name, keys])
        _same(name, int(theirs.output.split()[-1]), record)
        peer = f"pandas {peer_version('pandas', 'pandas')}"
        figures += [
            Figure(f"{prefix}/{name}/wall", wall, "s", peer, round(theirs.wall_seconds, 2), 1.0),
            Figure(f"{prefix}/{name}/peak_memory", ours.peak_memory_bytes // _MIB, "MiB", peer,
                   theirs.peak_memory_bytes // _MIB),
        ]  # fmt: skip
    else:
        figures.append(
            Figure(f"{prefix}/{name}/peak_memory", ours.peak_memory_bytes // _MIB, "MiB")
        )
    limit = f"DuckDB {package_versions()['duckdb']} scan"
    figures.append(
        Figure(f"{prefix}/{name}/wall_to_scan", wall, "s", limit, round(scan.wall_seconds, 2))
    )
    return figures


def _same(name: str, theirs: int, record: dict[str, object]) -> None:
    funnel = record["funnel"]
    assert isinstance(funnel, list)
    ours = funnel[-2]["left"] if record["duplicates"] else funnel[-1]["left"]
    if ours != theirs:
        raise CaplabError(
            f"{name}: we select {ours:,} samples before copies are dropped and pandas {theirs:,}."
        )


def _read_columns(dataset: Dataset, record: dict[str, object]) -> tuple[list[str], list[str]]:
    """Columns of samples and of scores that a stored selection's rules name."""
    text = json.dumps(record["sql"])
    samples, scores = (_columns(dataset, table) for table in ("samples", "scores"))
    return (
        [name for name in samples if name in text],
        [name for name in scores if name in text and name not in samples],
    )


def _columns(dataset: Dataset, table: str) -> list[str]:
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(dataset.table_path(table, dataset.shards()[0])).names
    return [name for name in names if name != "key"]


def _scan(dataset: Dataset, samples: list[str], scores: list[str]) -> ProcessCost:
    queries = []
    for table, columns in (("samples", samples), ("scores", scores)):
        if columns:
            values = ", ".join(f"max({name}), count({name})" for name in columns)
            queries.append(f"SELECT max(key), {values} FROM {dataset.scan(table)}")
    return run_measured([sys.executable, "-c", _SCAN, *queries])


def _joined_metadata(dataset: Dataset, folder: Path) -> Path:
    """One Parquet file a shard with samples and scores side by side, stored samples alone."""
    columns = {name for names, _ in FILTERS.values() for name in names}
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    with dataset.connect(["samples", "scores"]) as connection:
        scored = [name for name in _columns(dataset, "scores") if name in columns]
        sampled = [name for name in _columns(dataset, "samples") if name in columns]
        names = [f"samples.{name}" for name in sampled] + [f"scores.{name}" for name in scored]
        for shard in dataset.shards():
            with atomic_path(folder / f"{shard}.parquet") as temporary:
                connection.execute(
                    f"COPY (SELECT key, {', '.join(names)} FROM samples JOIN scores USING (key) "
                    f"WHERE shard = '{shard}' AND status = 'stored') TO "
                    f"{sql_text(plain_path(temporary))} (FORMAT parquet, COMPRESSION zstd)"
                )
    return folder


def _reference(path: Path) -> Path:
    """Vectors around thirty of the generated subjects."""
    width = Shape().embedding_width
    centres = np.random.default_rng(7).normal(0, 1, (300, width))[:30]
    np.save(path, centres.astype(np.float32))
    return path
