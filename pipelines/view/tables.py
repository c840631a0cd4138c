"""A dataset's tables on one connection that reads nothing else, with the samples copied for speed.

    cache/samples-MARK.duckdb      `sample`, one row a stored sample; made when first needed, and
                                   read by every later start until the tables change
    cache/.MARK.HOST.PROCESS.tmp/  the orders that this process made (pipelines.view.rows), and
                                   what DuckDB spills

The copy costs one join of the tables, about as much disk as they have themselves, and memory that
does not grow.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import duckdb

from curate.base.duplicate_methods import METHODS
from curate.base.errors import DatasetError
from curate.base.files import atomic_path, fingerprint, plain_path, temporary_path
from curate.store.contract import SCHEMAS, WRITTEN_BY
from curate.store.dataset import Dataset
from curate.store.sample_view import SEMDEDUP, TABLES, SampleTables
from curate.store.scans import sql_name, sql_text
from pipelines.terminal.failures import first_line, known

_LEFT_OUT = ("status", "reason", "detail", "sha256")  # nobody sorts by them
_NUMBER = itertools.count()
_REMEMBERED = 100_000  # shards of keys that the page saw


class Tables:
    """The tables of a dataset at one moment; `mark` changes with their files."""

    def __init__(self, dataset: Dataset, cache: Path, mark: str) -> None:
        """Open them, and copy the samples unless the copy of an earlier look is of the same files.

        Raises:
            DatasetError: a table is damaged.
        """
        self.dataset, self.cache, self.mark = dataset, cache, mark
        self.orders: OrderedDict[str, int] = OrderedDict()
        """Name -> rows of the orders that are kept, the latest used last."""
        self.lock, self.making = threading.Lock(), threading.Lock()
        self._shard_of: dict[str, str] = {}
        # Of one that still answers in this process there may be another.
        self._own = temporary_path(cache / f"{mark}-{next(_NUMBER)}")
        self._own.mkdir()
        self._folder = plain_path(self._own)
        weakref.finalize(self, shutil.rmtree, self._own, ignore_errors=True)
        try:
            self._open()
        except duckdb.Error as error:
            raise DatasetError(unreadable(dataset.directory, error)) from error

    def _open(self) -> None:
        dataset = self.dataset
        scored = dataset.has_table("samples") and dataset.has_table("scores")
        self._samples = SampleTables(dataset) if scored else None
        self.connection = (
            self._samples.connection if self._samples is not None else dataset.connect()
        )
        self.connection.execute(f"SET temp_directory = {sql_text(self._folder / 'spill')}")
        if scored:
            made = {*TABLES, *(["caption_scores"] if dataset.has_table("caption_scores") else [])}
            dataset.add_views(self.connection, [name for name in SCHEMAS if name not in made])
        self._attach()
        self._lock_connection()

    @cached_property
    def columns(self) -> dict[str, str]:
        """Column of `sample` -> its type in DuckDB's words."""
        described = self.connection.cursor().execute("DESCRIBE sample").fetchall()
        return {str(row[0]): str(row[1]) for row in described}

    def sample_tables(self) -> SampleTables:
        """See Opened.sample_tables."""
        if self._samples is None:
            raise DatasetError(
                f"{self.dataset.directory} has no scores yet; finish `caplab curate` on it first."
            )
        return self._samples.apart()

    def shard_of(self, key: str) -> str:
        """The shard that holds a stored sample.

        Raises:
            DatasetError: there is no such sample.
        """
        shard = self._shard_of.get(key)
        if shard is None:
            cursor = self.connection.cursor()
            found = cursor.execute("SELECT shard FROM sample WHERE key = $1", [key]).fetchall()
            if not found:
                raise DatasetError(f"No sample {key[:40]!r} is stored here.")
            shard = str(found[0][0])
        return shard

    def remember_shards(self, shard_of: dict[str, str]) -> None:
        """So that the pictures that the page is about to show cost no search."""
        with self.lock:
            if len(self._shard_of) > _REMEMBERED:
                self._shard_of = {}
            self._shard_of.update(shard_of)

    def close(self) -> None:
        """End the queries that run, and remove the orders."""
        self.connection.interrupt()
        shutil.rmtree(self._own, ignore_errors=True)

    def _attach(self) -> None:
        """Attach the copy and the orders, and let `sample` mean the copy."""
        mark = files_mark(self.dataset, (*TABLES, "caption_scores"))
        path = self.cache / f"samples-{mark}.duckdb"
        attach = f"ATTACH {sql_text(plain_path(path))} AS copied (READ_ONLY)"
        try:
            self.connection.execute(attach)
        except duckdb.Error:  # not there yet, damaged, or of another version of DuckDB
            with atomic_path(path) as temporary:
                self._copy(temporary)
            for old in self.cache.glob("samples-*.duckdb"):
                if old != path:
                    old.unlink(missing_ok=True)
            self.connection.execute(attach)
        self.connection.execute(f"ATTACH {sql_text(self._folder / 'orders.duckdb')} AS orders")
        self.connection.execute("CREATE OR REPLACE VIEW sample AS SELECT * FROM copied.sample")

    def _copy(self, target: Path) -> None:
        connection = self.connection
        source = self._source()
        described = connection.execute(f"DESCRIBE {source}").fetchall()
        kept = [
            sql_name(str(row[0]))
            for row in described
            if str(row[0]) not in _LEFT_OUT and kind_of(str(row[1])) is not None
        ]
        connection.execute(f"ATTACH {sql_text(plain_path(target))} AS copying")
        connection.execute(
            f"CREATE TABLE copying.sample AS SELECT {', '.join(kept)} FROM ({source})"
        )
        connection.execute("CHECKPOINT copying")
        connection.execute("DETACH copying")

    def _source(self) -> str:
        """A SELECT of one row a stored sample."""
        if self._samples is None:
            flags = "".join(f", false AS duplicate_{method}" for method in (*METHODS, SEMDEDUP))
            flags += ", false AS duplicate, false AS contaminated, false AS known"
            return f"SELECT *{flags} FROM samples WHERE status = 'stored'"
        vectors = ("image_embedding", "text_embedding")
        source = self._samples.source(
            [name for name in self._samples.columns if not name.startswith(vectors)]
        )
        stored, scored = self.connection.execute(
            "SELECT (SELECT count(*) FROM samples WHERE status = 'stored'), "
            "(SELECT count(*) FROM scores)"
        ).fetchall()[0]
        if stored == scored:
            return source
        # While a dataset is written, pictures are there before their scores.
        return (
            "SELECT samples.*, scored.* EXCLUDE "
            f"({', '.join(sql_name(name) for name in self._of_samples())}) "
            f"FROM samples LEFT JOIN ({source}) scored ON scored.key = samples.key "
            "WHERE samples.status = 'stored'"
        )

    def _of_samples(self) -> list[str]:
        described = self.connection.execute("DESCRIBE samples").fetchall()
        return [str(row[0]) for row in described]

    def _lock_connection(self) -> None:
        if self._samples is not None:
            self._samples.lock()
            return
        folders = [self.dataset.directory / name for name in ("tables", "selections")]
        allowed = ", ".join(sql_text(plain_path(folder)) for folder in folders)
        self.connection.execute(f"SET allowed_directories = [{allowed}]")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")


def unreadable(directory: Path, error: Exception) -> str:
    """A sentence on a file that cannot be read: it is damaged, or was written anew meanwhile."""
    if (told := known(error)) is not None:
        return f"{told[:1].upper()}{told[1:]}"
    return (
        f"A file cannot be read ({first_line(error)}); look again in a moment, or let "
        f"`caplab check {directory}` say what is damaged."
    )


def kind_of(kind: str) -> str | None:
    """number, bool, text or time, of a type in DuckDB's words; None where it is no plain value."""
    if "[" in kind or "(" in kind:
        return None
    if kind in ("FLOAT", "DOUBLE") or "INT" in kind:
        return "number"
    times = "time" if kind.startswith(("TIMESTAMP", "DATE")) else None
    return {"BOOLEAN": "bool", "VARCHAR": "text"}.get(kind, times)


def tars_mark(dataset: Dataset) -> str:
    """Another one in another directory, and whenever a tar is stored anew; one look at each tar."""
    return _mark_of([dataset.record_path, *sorted(dataset.directory.glob("shards/*.tar"))])


def files_mark(dataset: Dataset, tables: tuple[str, ...], selections: bool = False) -> str:
    """Changes whenever a file of these tables does; one look at each file's size and time."""
    # A mark from the page rewrites a file, and changes nothing that stands in an order.
    files = [
        path
        for table in tables
        for path in dataset.table_files(table)
        if table != "captions" or not path.parent.name.startswith(WRITTEN_BY)
    ]
    if selections:
        files += map(dataset.selection_path, dataset.selections())
    return _mark_of(files)


def _mark_of(files: Iterable[Path]) -> str:
    marks = []
    for path in files:
        with suppress(FileNotFoundError):  # gone since it was listed, which is another mark
            found = path.stat()
            marks.append([str(path), found.st_size, found.st_mtime_ns])
    return fingerprint(marks)
