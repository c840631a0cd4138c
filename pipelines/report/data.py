"""What a report can draw on: a dataset, an ablation or training runs, and the demo's own files."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.errors import DatasetError
from curate.base.files import read_json
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes
from curate.store.sample_view import BYTES_PER_PIXEL, BYTES_PER_PIXEL_SQL
from curate.store.scans import parquet_scan, sql_name, sql_text
from pipelines.report.palette import Palette
from pipelines.report.pictures import Picture, ShardPictures, thumbnail
from pipelines.report.thresholds import Cut, cuts

if TYPE_CHECKING:
    import duckdb

# Sampled pictures come from at most this many shards: reading one means walking its headers.
PICTURE_SHARDS = 12


@dataclass(frozen=True)
class TrainRun:
    """A training run's directory, and the arm and seed that it belongs to."""

    directory: Path
    arm: str
    seed: int


@dataclass
class Inputs:
    """Everything that was found. Sections ask for what they need and stay away without it."""

    dataset: Dataset | None = None
    ablation: Path | None = None
    train_runs: list[TrainRun] = field(default_factory=list)
    demo: Path | None = None
    followed: str | None = None
    """The selection that the user asked the report to follow."""
    compared: tuple[str, str] | None = None
    """The two caption sets that the user asked to see side by side."""
    seed: int = 0
    unreadable: set[str] = field(default_factory=set)
    """Keys of sampled pictures that are stored and cannot be decoded; the page names them."""

    _hosts_counted: bool = False
    _shard_pictures: ShardPictures = field(default_factory=ShardPictures)

    # ---- tables -------------------------------------------------------------------------------

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB over the dataset's tables, with `selected` (the keys of `selection`) beside them.

        Where the world's ground truth is known, it is the view `truth`.
        """
        import duckdb

        connection = self.dataset.connect() if self.dataset is not None else duckdb.connect()
        connection.execute("SET enable_progress_bar = false")
        if self.dataset is not None and self.selection is not None:
            keys = parquet_scan(self.dataset.selection_path(self.selection))
            connection.execute(f"CREATE VIEW selected AS SELECT key FROM {keys}")
        else:
            connection.execute("CREATE VIEW selected AS SELECT '' AS key WHERE false")
        if self.truth_path is not None:
            truth = parquet_scan(self.truth_path)
            connection.execute(f"CREATE VIEW truth AS SELECT * FROM {truth}")
        return connection

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
        """The result of a query as one dict a row."""
        cursor = self.connection.execute(sql, parameters or [])
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def columns(self, view: str) -> dict[str, str]:
        """Name -> DuckDB type of the columns of a view."""
        rows = self.rows(f"DESCRIBE SELECT * FROM {view}")
        return {row["column_name"]: row["column_type"] for row in rows}

    def parquet(self, path: Path) -> list[dict[str, Any]]:
        """A small Parquet file as one dict a row; empty where it does not exist.

        Raises:
            DatasetError: it cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not path.exists():
            return []
        try:
            with pq.ParquetFile(path) as file:
                rows: list[dict[str, Any]] = file.read().to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{path} is unreadable ({error}).") from error
        return rows

    # ---- places -------------------------------------------------------------------------------

    @property
    def truth_path(self) -> Path | None:
        """The synthetic world's ground truth, where there is one."""
        path = self.demo / "world" / "truth.parquet" if self.demo is not None else None
        return path if path is not None and path.exists() else None

    def result_path(self, name: str) -> Path | None:
        """A table of the ablation's results, where there is one."""
        path = self.ablation / "results" / f"{name}.parquet" if self.ablation is not None else None
        return path if path is not None and path.exists() else None

    def results(self, name: str) -> list[dict[str, Any]]:
        """All rows of a table of the ablation's results; empty where there is none."""
        path = self.result_path(name)
        return self.parquet(path) if path is not None else []

    @cached_property
    def run_record(self) -> dict[str, Any]:
        """run.json of the ablation; empty without one."""
        if self.ablation is None or not (self.ablation / "run.json").exists():
            return {}
        record: dict[str, Any] = read_json(self.ablation / "run.json")
        return record

    @cached_property
    def arms(self) -> list[str]:
        """Names of the ablation's arms, in the order in which they were declared."""
        declared = [arm["name"] for arm in self.run_record.get("arms", [])]
        return declared or list(dict.fromkeys(run.arm for run in self.train_runs))

    @cached_property
    def palette(self) -> Palette:
        """The report's colours."""
        return Palette(self.arms)

    @cached_property
    def selection(self) -> str | None:
        """The selection that is followed: asked for, the ablation's, or the one made last."""
        if self.dataset is None:
            return None
        names = self.dataset.selections()
        settings = self.run_record.get("settings")
        wanted = settings.get("selection") if isinstance(settings, dict) else None
        if self.followed is not None and self.followed not in names:
            known = ", ".join(names) or "none yet"
            raise DatasetError(f"There is no selection {self.followed!r} (selections: {known}).")
        for name in (self.followed, wanted):
            if name in names:
                return str(name)
        return max(names, key=self._made_at, default=None)

    def _made_at(self, name: str) -> tuple[str, int]:
        """When a selection was made; its file's time decides between two of one second."""
        assert self.dataset is not None
        made = str(self.dataset.selection_record(name).get("created_at") or "")
        return made, self.dataset.selection_path(name).stat().st_mtime_ns

    @cached_property
    def selection_record(self) -> dict[str, Any]:
        """The record of `selection`: its SQL, rules and counts; empty without one."""
        if self.dataset is None or self.selection is None:
            return {}
        return self.dataset.selection_record(self.selection)

    @cached_property
    def selection_records(self) -> dict[str, dict[str, Any]]:
        """Selection -> its record, the followed one first."""
        if self.dataset is None or self.selection is None:
            return {}
        names = [self.selection, *(n for n in self.dataset.selections() if n != self.selection)]
        return {name: self.dataset.selection_record(name) for name in names}

    @cached_property
    def cuts(self) -> dict[str, list[Cut]]:
        """Column -> where selections cut it, the followed selection's cuts first."""
        return cuts(self.selection_records)

    @cached_property
    def selection_size(self) -> int:
        """How many samples `selection` keeps."""
        return int(self.rows("SELECT count(*) AS n FROM selected")[0]["n"])

    @property
    def rules(self) -> list[str]:
        """The rules of `selection` as SQL, in order."""
        return [str(rule) for rule in self.selection_record.get("rules", [])]

    # ---- pictures -----------------------------------------------------------------------------

    @cached_property
    def picture_shards(self) -> list[str]:
        """The shards that sampled pictures come from: all, or a seeded choice of a few.

        Only shards whose tar is there count; a dataset of tables alone has none.
        """
        if self.dataset is None:
            return []
        shards = sorted(
            path.stem for path in self.dataset.shard_path("x").parent.glob("[0-9]*.tar")
        )
        if len(shards) <= PICTURE_SHARDS:
            return shards
        return sorted(random.Random(self.seed).sample(shards, PICTURE_SHARDS))

    @cached_property
    def shard_list(self) -> str:
        """`picture_shards` as an SQL list."""
        quoted = ", ".join(map(sql_text, self.picture_shards))
        return f"({quoted})" if quoted else "('')"

    def need_hosts(self) -> None:
        """Have the table `_hosts` (see pipelines.report.data), counted when first needed."""
        if not self._hosts_counted:
            count_hosts(self)
            self._hosts_counted = True

    @cached_property
    def pictured(self) -> str:
        """Name of a table of the samples that can be shown, with their scores.

        It holds the stored samples of `picture_shards` alone, so it stays small however large the
        dataset is, and looking for samples beside a threshold reads nothing else.
        """
        assert self.dataset is not None
        parts = {}
        for table in ("samples", "scores"):
            files = [
                self.dataset.table_path(table, shard)
                for shard in self.picture_shards
                if self.dataset.has_shard(table, shard)
            ]
            parts[table] = (
                parquet_scan(files, union_by_name=True)
                if files
                else f"(SELECT * FROM {table} WHERE false)"
            )
        scored = set(self.columns("scores")) - {"key"}
        shared = scored & {*self.columns("samples"), BYTES_PER_PIXEL}
        hidden = ", ".join(sql_name(name) for name in sorted(shared | {"key"}))
        self.connection.execute(
            f"CREATE TEMP TABLE pictured AS SELECT samples.*, c.* EXCLUDE ({hidden}), "
            f"{BYTES_PER_PIXEL_SQL} AS {BYTES_PER_PIXEL} "
            f"FROM {parts['samples']} samples JOIN {parts['scores']} c ON c.key = samples.key "
            "WHERE samples.status = 'stored'"
        )
        return "pictured"

    def pictures(
        self, shard_of: dict[str, str], alt: dict[str, str], side: int
    ) -> dict[str, Picture]:
        """Thumbnails of stored samples; one that cannot be read is noted in `unreadable`.

        Args:
            shard_of: key -> shard.
            alt: key -> what to tell somebody who cannot see it.
        """
        if self.dataset is None:
            return {}
        paths = {key: self.dataset.shard_path(shard) for key, shard in shard_of.items()}
        encoded = self._shard_pictures.read(paths)
        found = {}
        for key in shard_of:
            try:
                if key in encoded:
                    found[key] = thumbnail(encoded[key], alt[key], side)
            except DatasetError:
                self.unreadable.add(key)
        return found


def find_inputs(
    dataset_dir: Path | str | None = None,
    run_dir: Path | str | None = None,
    demo_dir: Path | str | None = None,
) -> Inputs:
    """Look at what the directories hold.

    Args:
        run_dir: an ablation's directory, or that of one training run.
        demo_dir: a demo's directory; its `dataset` and `ablation` count where no other is given.

    Raises:
        DatasetError: a directory that was named is not what it should be.
    """
    demo = Path(demo_dir) if demo_dir is not None else None
    dataset = Dataset.open(dataset_dir) if dataset_dir is not None else None
    run = Path(run_dir) if run_dir is not None else None
    if demo is not None:
        if dataset is None and (demo / "dataset" / "dataset.json").exists():
            dataset = Dataset.open(demo / "dataset")
        if run is None and (demo / "ablation" / "run.json").exists():
            run = demo / "ablation"
    if dataset is not None:
        # A report may look at a run that goes on; it counts what is pending.
        refuse_holes(dataset, dataset.selections(), unfinished=True)
    if run is None:
        return Inputs(dataset, None, [], demo)
    if not (run / "run.json").exists():
        raise DatasetError(f"{run} is not a run (it has no run.json).")
    record = read_json(run / "run.json")
    if record.get("kind") == "ablation":
        return Inputs(dataset, run, _runs_of(run, record), demo)
    identity = record.get("settings") or record.get("identity") or {}
    seed = identity.get("seed", 0) if isinstance(identity, dict) else 0
    return Inputs(dataset, None, [TrainRun(run, run.name, int(seed))], demo)


def _runs_of(study: Path, record: dict[str, Any]) -> list[TrainRun]:
    """The training runs that a study's record names and that are there, by arm and seed."""
    runs = [
        TrainRun(study / run["run"], run["arm"], int(run["seed"])) for run in record.get("runs", [])
    ]
    return sorted((r for r in runs if r.directory.is_dir()), key=lambda run: (run.arm, run.seed))


# The authority of a URL without user name and port; what has none counts as "(no host)".
HOST_SQL = (
    "coalesce(nullif(lower(regexp_extract(url, "
    "'^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?(\\[[^\\]]*\\]|[^/?#:]*)', 1)), ''), '(no host)')"
)
NO_HOST = "(no host)"
SCORES = ("clip_similarity", "aesthetic")
"""Scores whose means are told by domain, where they exist."""


def count_hosts(inputs: Inputs) -> None:
    """Make the table `_hosts`: host, domain, status, reason, n rows, and for each score of SCORES
    the sum over them and how many have it. One scan; its size grows with the hosts."""
    scored = [name for name in SCORES if name in inputs.columns("scores")]
    sums = "".join(
        f", sum({sql_name(name)}) FILTER (isfinite({sql_name(name)})) AS sum_{name}, "
        f"count({sql_name(name)}) FILTER (isfinite({sql_name(name)})) AS count_{name}"
        for name in scored
    )
    joined = (
        f" LEFT JOIN (SELECT key, {', '.join(scored)} FROM scores) USING (key)" if scored else ""
    )
    inputs.connection.execute(
        "CREATE TEMP TABLE _by_host AS SELECT host, status, reason, count(*) AS n"
        f"{sums} FROM (SELECT key, status, reason, {HOST_SQL} AS host FROM samples){joined} "
        "GROUP BY host, status, reason"
    )
    hosts = [row["host"] for row in inputs.rows("SELECT DISTINCT host FROM _by_host ORDER BY 1")]
    inputs.connection.execute("CREATE TEMP TABLE _domains (host VARCHAR, domain VARCHAR)")
    for start in range(0, len(hosts), 50_000):
        some = hosts[start : start + 50_000]
        inputs.connection.execute(
            "INSERT INTO _domains SELECT unnest($1), unnest($2)",
            [some, [registered_domain(host) for host in some]],
        )
    inputs.connection.execute(
        "CREATE TEMP TABLE _hosts AS SELECT * FROM _by_host JOIN _domains USING (host)"
    )


def registered_domain(host: str) -> str:
    """What somebody registered: "img2.shop.co.uk" -> "shop.co.uk"; an address stays as it is.

    By the Public Suffix List as tldextract ships it; nothing is fetched.
    """
    found: str = _extractor()(host).top_domain_under_public_suffix
    return found or host


@cache
def _extractor() -> Any:
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
