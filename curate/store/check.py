"""Whether a dataset is whole: every file, every row and every picture, and what repairs it.

`check` looks at contract and records; each table's schema, version and rows against the stored
samples; every key exactly once; the members of every tar against its samples table. Asked for, it
compares each tar with the sha256 that was noted when it was written, and decodes every table.

Cost: the keys of every table and the headers of every tar are read; with `read_all` every byte.
Memory: the keys of one shard, and what DuckDB needs to find repeated keys.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import leftovers, read_json, sha256_file
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.contract import (
    CONTRACT_VERSION,
    RETRY_DIRECTORY,
    RETRY_NOTE,
    SELECTION,
    STORED,
    WEIGHTED_SELECTION,
)
from curate.store.dataset import Dataset
from curate.store.file_faults import are_cut_so, other_keys, tar_members, unlike
from curate.store.holes import (
    ALT,
    DUPLICATE_TABLES,
    RECORD,
    SCORE_TABLES,
    SELECTIONS,
    STRAY,
    TARS,
    Hole,
    all_shards,
    find_holes,
    finished_tables,
    path_of,
    repairing,
)
from curate.store.scans import parquet_scan
from curate.store.shards import IMAGE_EXTENSIONS, tar_note

_CAPTION_ID = ("key", "kind", "sample_index")


@dataclass(frozen=True)
class Check(Summary):
    """What was found.

    Attributes:
        lines: a line a table, such as "scores: 36 shards, 3,402 rows".
        holes: what is not as it should be, in the order in which it is to be mended.
        remarks: what is no fault and worth knowing.
    """

    directory: Path
    lines: list[str]
    holes: list[Hole]
    remarks: list[str]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.holes

    def text(self) -> str:
        """What the command prints."""
        dataset = Dataset(self.directory)
        faults = [
            f"{hole.path.relative_to(self.directory)} {hole.problem}: {repairing(dataset, hole)}"
            for hole in self.holes
        ]
        count = amount(len(faults), "fault")
        verdict = "whole" if self.whole else f"{count}, each with the command that repairs it"
        return "\n".join([*self.lines, *self.remarks, *faults, f"{self.directory}: {verdict}"])


def check(dataset: Dataset, read_all: bool = False) -> Check:
    """Look at everything; change nothing.

    Args:
        read_all: also read every byte of tars and tables.

    Raises:
        ConfigError: there is no dataset.
    """
    return _Checker(dataset, read_all).run()


def _positive(weights: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.greater(weights.fill_null(0), 0)).as_py())


class _Checker:
    def __init__(self, dataset: Dataset, read_all: bool) -> None:
        self.dataset, self.read_all = dataset, read_all
        self.holes: list[Hole] = []
        self.remarks: list[str] = []
        self.rows: Counter[str] = Counter()
        self.files: Counter[str] = Counter()

    def run(self) -> Check:
        self._records()
        self.holes += find_holes(self.dataset)
        self.bad = {hole.path for hole in self.holes}
        for shard in all_shards(self.dataset):
            self._shard(shard)
        self._strays()
        self._uneven_columns()
        self._repeated_keys()
        for table in DUPLICATE_TABLES:
            self._keys_are_stored(table, "all")
        for path in sorted(self.dataset.table_directory("reference_matches").glob("[!.]*.parquet")):
            self._keys_are_stored("reference_matches", path.stem)
        for name in self.dataset.selections():
            self._selection(name)
        left = sum(1 for _ in leftovers(self.dataset.directory, below=True))
        if left:
            self.remarks.append(
                f"left half-written by dead processes: {amount(left, 'temporary file')}; the next "
                f"command that writes here clears up"
            )
        lines = [
            f"{table}: {amount(self.files[table], 'file')}, "
            f"{amount(self.rows[table], 'picture' if table == TARS else 'row')}"
            for table in self.files
        ]
        return Check(self.dataset.directory, lines, self.holes, self.remarks)

    # ---- records --------------------------------------------------------------------------------

    def _records(self) -> None:
        path = self.dataset.record_path
        if not path.exists():
            if not (self.dataset.directory / "input" / "input.json").exists():
                raise ConfigError(
                    f"{self.dataset.directory} is not a dataset; make one with `caplab curate`."
                )
            self._fault(RECORD, "record", path, "is lost")
        for record in (path, self.dataset.directory / "scores.json"):
            if record.exists():
                try:
                    content = read_json(record)
                    version = content.get("contract_version", CONTRACT_VERSION)
                except (DatasetError, AttributeError):
                    self._fault(record.name, "record", record, "is cut or no JSON")
                    continue
                if record == path and "identity" not in content:
                    self._fault(RECORD, "record", path, "is no record of a dataset")
                    continue
                if version != CONTRACT_VERSION:
                    problem = f"is of contract version {version}, not {CONTRACT_VERSION}"
                    self._fault(record.name, "record", record, problem)
        for note in sorted((self.dataset.directory / RETRY_DIRECTORY).glob(f"*/{RETRY_NOTE}")):
            self._fault("retry", note.parent.name, note, "waits to be put in its place")
        for record in sorted((self.dataset.directory / "finished").glob("[!.]*.json")):
            if record.stem.replace("+", "/", 1) not in finished_tables(self.dataset):
                self._fault("finished", record.stem, record, "is cut or no JSON")

    def _fault(self, table: str, name: str, path: Path, problem: str) -> None:
        self.holes.append(Hole(table, name, path, problem))

    def _strays(self) -> None:
        """Files that a scan of their table would read, and that no shard of the input owns."""
        shards = set(all_shards(self.dataset))
        for table in ("samples", *SCORE_TABLES):
            for path in self.dataset.table_directory(table).glob("**/[!.]*.parquet"):
                if path.stem not in shards or path.parent.name != table:
                    self._fault(STRAY, path.stem, path, "belongs to no shard")
        for path in self.dataset.shard_path("x").parent.glob("[!.]*.tar"):
            if path.stem not in shards:
                self._fault(STRAY, path.stem, path, "belongs to no shard")

    def _uneven_columns(self) -> None:
        """Scores that only some shards have: whoever selects by them finds the others unscored."""
        having: Counter[str] = Counter()
        files = self._good("scores")
        for path in files:
            having.update(pq.read_schema(path).names)
        partly = sorted(name for name, count in having.items() if count < len(files))
        if partly:
            self.remarks.append(
                f"scored in some shards only: {', '.join(partly)}; the `caplab score` that was "
                f"stopped goes on with the same command"
            )

    # ---- one shard ------------------------------------------------------------------------------

    def _shard(self, shard: str) -> None:
        given = self._keys("input", shard, self.dataset.input_path(shard))
        samples = self._read("samples", shard, ["key", "status"])
        if samples is None:
            return
        keys = samples.column("key").to_pylist()
        if given is not None and given != keys:
            self._say("samples", shard, f"holds {other_keys(keys, given)} of its input")
        stored = samples.filter(pc.equal(samples.column("status"), STORED))
        expected = stored.column("key").to_pylist()
        self._tar(shard, expected)
        for table in (*SCORE_TABLES, ALT):
            found = self._keys(table, shard, path_of(self.dataset, table, shard))
            if found is not None and Counter(found) != Counter(expected):
                self._say(table, shard, f"holds {other_keys(found, expected)} of its samples")
        wanted = set(expected)
        for kind in ("captions", "caption_scores"):
            for folder in sorted(self.dataset.table_directory(kind).glob("[!.]*")):
                table = f"{kind}/{folder.name}"
                if table != ALT and folder.is_dir():
                    self._captions(table, shard, wanted)

    def _tar(self, shard: str, expected: list[str]) -> None:
        path = self.dataset.shard_path(shard)
        if path in self.bad:
            return
        if not path.exists():
            # A dataset of tables alone has no tar at all.
            if expected and any(path.parent.glob("[!.]*.tar")):
                self._say(TARS, shard, "is lost")
            return
        found = []
        try:
            note = tar_note(self.dataset.table_path("samples", shard))
            for key, extensions in tar_members(path):
                found.append(key)
                if not extensions & IMAGE_EXTENSIONS:
                    self._say(TARS, shard, f"holds no picture of {key}")
                    return
        except (OSError, tarfile.TarError, ValueError) as error:
            self._say(TARS, shard, f"is unreadable ({error})")
            return
        self.files[TARS] += 1
        self.rows[TARS] += len(found)
        if found != expected:
            self._say(TARS, shard, f"holds {other_keys(found, expected)} of its samples")
        elif note and note["bytes"] != path.stat().st_size:
            self._say(TARS, shard, f"has {path.stat().st_size:,} bytes of {note['bytes']:,}")
        elif self.read_all and note and sha256_file(path) != note["sha256"]:
            self._say(TARS, shard, "holds other bytes than were written (sha256)")

    def _captions(self, table: str, shard: str, stored: set[str]) -> None:
        rows = self._read(table, shard, list(_CAPTION_ID))
        if rows is None:
            return
        ids = Counter(zip(*(rows.column(name).to_pylist() for name in _CAPTION_ID), strict=True))
        if len(ids) < rows.num_rows:
            self._say(table, shard, f"holds {amount(rows.num_rows - len(ids), 'caption')} twice")
        gone = {key for key, _, _ in ids} - stored
        if gone:
            self.remarks.append(
                f"{table}/{shard} has captions of "
                f"{amount(len(gone), 'picture that is', 'pictures that are')} not stored any "
                f"more; nothing reads them"
            )

    # ---- files ----------------------------------------------------------------------------------

    def _read(self, table: str, name: str, columns: list[str]) -> pa.Table | None:
        """Some columns of a table's file; None, and a hole, where it is not as it should be."""
        path = path_of(self.dataset, table, name)
        if path in self.bad or not path.exists():
            return None
        kind = table.partition("/")[0]
        try:
            with pq.ParquetFile(path) as parquet:
                if problem := unlike(parquet.schema_arrow, kind):
                    self._say(table, name, problem)
                    return None
                rows = parquet.read(columns=None if self.read_all else columns)
        except (OSError, pa.ArrowException) as error:
            self._say(table, name, f"is unreadable ({str(error).partition(chr(10))[0]})")
            return None
        self.files[table] += 1
        self.rows[table] += rows.num_rows
        return rows

    def _keys(self, table: str, name: str, path: Path) -> list[str] | None:
        if table != "input":
            rows = self._read(table, name, ["key"])
            return None if rows is None else list(rows.column("key").to_pylist())
        if path in self.bad or not path.exists():
            return None
        try:
            with pq.ParquetFile(path) as parquet:
                read = parquet.read(columns=None if self.read_all else ["key", "row"])
                keys, rows = read.column("key"), read.column("row").to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            self._say(table, name, f"is unreadable ({str(error).partition(chr(10))[0]})")
            return None
        if not are_cut_so(self.dataset, name, rows):
            self._say(table, name, "holds other rows than were read from the list")
            return None
        self.files[table] += 1
        self.rows[table] += len(keys)
        return list(keys.to_pylist())

    def _say(self, table: str, name: str, problem: str) -> None:
        path = self.dataset.input_path(name) if table == "input" else None
        path = path or path_of(self.dataset, table, name)
        self.bad.add(path)
        self._fault(table, name, path, problem)

    # ---- the whole dataset ----------------------------------------------------------------------

    def _good(self, table: str) -> list[Path]:
        return [path for path in self.dataset.table_files(table) if path not in self.bad]

    def _count(self, sql: str) -> int:
        import duckdb

        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar = false")
            return int(connection.execute(sql).fetchall()[0][0])

    def _repeated_keys(self) -> None:
        files = self._good("samples")
        if not files:
            return
        repeated = self._count(
            f"SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {parquet_scan(files)} "
            "GROUP BY key HAVING count(*) > 1)"
        )
        if repeated:
            path = self.dataset.table_directory("samples")
            self._fault("samples", "keys", path, f"holds {repeated:,} keys more than once")

    def _keys_are_stored(self, table: str, name: str) -> None:
        columns = ["key_a", "key_b"] if table == "duplicate_pairs" else ["key"]
        rows = self._read(table, name, columns)
        if rows is None or table == "reference_matches":
            return
        samples = self._good("samples")
        if not samples:
            return
        scan = parquet_scan(path_of(self.dataset, table, name))
        keys = " UNION ALL ".join(f"SELECT {column} AS key FROM {scan}" for column in columns)
        stored = f"SELECT key FROM {parquet_scan(samples)} WHERE status = '{STORED}'"
        gone = self._count(f"SELECT count(DISTINCT key) FROM ({keys}) WHERE key NOT IN ({stored})")
        if table == "duplicate_searched" and not gone:
            new = self._count(f"SELECT count(*) FROM ({stored}) WHERE key NOT IN ({keys})")
            if new:
                said = amount(new, "sample was", "samples were")
                self._say(table, name, f"is out of date: {said} not compared")
        if gone:
            self._say(table, name, f"is out of date: {gone:,} of its samples are not stored")

    def _selection(self, name: str) -> None:
        path = self.dataset.selection_path(name)
        if path in self.bad or path.with_suffix(".json") in self.bad:
            return
        try:
            with pq.ParquetFile(path) as parquet:
                weighted = "weight" in parquet.schema_arrow.names
                rows = parquet.read(columns=(WEIGHTED_SELECTION if weighted else SELECTION).names)
                keys = rows.column("key")
        except (OSError, pa.ArrowException, KeyError) as error:
            problem = f"is unreadable ({str(error).partition(chr(10))[0]})"
            self.holes.append(Hole(SELECTIONS, name, path, problem))
            return
        self.files[SELECTIONS] += 1
        self.rows[SELECTIONS] += len(keys)
        record = self.dataset.selection_record(name)
        said = record.get("selected", len(keys))
        problem = ""
        if said != len(keys):
            problem = f"holds {len(keys):,} keys, and its record says {said:,}"
        elif weighted != bool(record.get("balance")):
            has, says = ("weights", "is not") if weighted else ("no weights", "is")
            problem = f"has {has}, and its record says that it {says} balanced"
        elif weighted and not _positive(rows.column("weight")):
            problem = "holds a weight that is not above 0"
        if problem:
            self.holes.append(Hole(SELECTIONS, name, path, problem))
            return
        samples = self._good("samples")
        gone = samples and self._count(
            f"SELECT count(*) FROM {parquet_scan(path)} WHERE key NOT IN "
            f"(SELECT key FROM {parquet_scan(samples)} WHERE status = '{STORED}')"
        )
        if gone:
            problem = f"names {amount(gone, 'sample that is', 'samples that are')} not stored"
            self.holes.append(Hole(SELECTIONS, name, path, problem))
