"""One row a stored sample: what a rule of a selection sees.

    samples      key, url, alt_text, width, height, original_width, original_bytes, ...
                 and bytes_per_pixel: bytes of the original over its pixels
    scores       clip_similarity, aesthetic, nsfw, aspect_ratio, blur, text_words, ...
    duplicates   duplicate_exact, duplicate_near, duplicate_embedding, and apart from these
                 duplicate_semdedup, which verifies nothing: duplicate search would drop the
                 sample at that level, were nothing else selected (see curate.duplicates.search);
                 duplicate: at the widest level that was run. All false where nobody searched.
    references   contaminated: shows a picture of a reference set of `caplab decontaminate`;
                 known: shows one of a dataset that duplicates were searched against

A rule may also name the columns of curate.store.sample_lookups (text_count, image_embedding,
scores of captions), which cost a join of their own and are no part of `sample_view`.

A score that is NaN or infinite is null here, whoever wrote it (curate.store.finite).

`sample_view(dataset)` offers all of it for one's own questions. A selection joins only the tables
that its rules name: a scan of the scores alone costs a third of the join with samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.duplicate_methods import METHODS
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint, plain_path
from curate.store.contract import ADDED_LATER, SCHEMAS
from curate.store.dataset import Dataset
from curate.store.finite import add_finite, finite
from curate.store.holes import refuse_damaged
from curate.store.sample_lookups import lookups
from curate.store.scans import duckdb_type, parquet_scan, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb

"""Levels of duplicates, each including those before it."""
SEMDEDUP = "semdedup"
"""A level beside them: equal files and near embeddings, nothing verified."""
BYTES_PER_PIXEL = "bytes_per_pixel"
BYTES_PER_PIXEL_SQL = (
    "(samples.original_bytes / "
    "nullif(samples.original_width::BIGINT * samples.original_height, 0))::FLOAT"
)
TABLES = ("samples", "scores", "duplicates", "duplicate_pairs", "reference_matches")


def sample_view(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the view `sample`; it can read the dataset's tables, no other file.

    Raises:
        DatasetError: nothing has been scored yet.
    """
    return SampleTables(dataset).lock().connection


class SampleTables:
    """The tables that make a sample, on one connection.

    `columns` are the names that a rule may read. `source(used)` is the SELECT that yields one row a
    stored sample with at least `used` among its columns.
    """

    def __init__(self, dataset: Dataset, shard: str | None = None) -> None:
        """Open the tables.

        Args:
            shard: only this shard's samples, without the columns of sample_lookups, which count
                over all; None means all samples.

        Raises:
            DatasetError: nothing has been scored yet.
        """
        if not dataset.has_table("samples") or not dataset.has_table("scores"):
            raise DatasetError(
                f"{dataset.directory} has no scores yet; finish `caplab curate` on it first."
            )
        self.dataset = dataset
        self.connection = dataset.connect(TABLES, shard)
        add_finite(self.connection)
        self._samples = {name: f"samples.{sql_name(name)}" for name in self._types("samples")}
        for name in ADDED_LATER["samples"]:
            kind = duckdb_type(SCHEMAS["samples"].field(name).type)
            self._samples.setdefault(name, f"NULL::{kind}")
        self._samples[BYTES_PER_PIXEL] = BYTES_PER_PIXEL_SQL
        # The samples table says what a sample is; a score of the same name would be a second truth.
        self._kinds = self._types("scores")
        self._scores = [name for name in self._kinds if name not in self._samples]
        self._flags = [
            *(f"duplicate_{method}" for method in (*METHODS, SEMDEDUP)),
            "duplicate",
        ]
        self._joined: dict[str, str] = {}
        self._lookups = lookups(dataset, self.connection, self._scores) if shard is None else {}
        self._complete: bool | None = None
        self._copy: str | None = None
        self._copied: dict[str, str] = {}
        self._make_flags()
        for purpose in ("contaminated", "known"):
            matched = f"SELECT DISTINCT key FROM reference_matches WHERE purpose = '{purpose}'"
            self.add_keys(purpose, f"({matched})")
        self.connection.execute(
            f"CREATE VIEW sample AS SELECT * FROM ({self.source([*self._own, *self._joined])})"
        )

    def apart(self) -> SampleTables:
        """The same on a cursor of its own, for another thread; what is added there stays there."""
        other = copy(self)
        other.connection = self.connection.cursor()
        other._joined = dict(self._joined)
        return other

    def read_copy(self, table: str, columns: Sequence[str]) -> None:
        """Take what `source` yields from a copy of it wherever the copy has all that is asked for.

        Args:
            table: has one row a stored sample, as `source` would give it.
            columns: of that table; `key` is one.
        """
        self._copy, self._copied = table, {name.lower(): sql_name(name) for name in columns}

    @property
    def columns(self) -> list[str]:
        """Names that a rule may read."""
        return [*self._own, *self._joined, *self._lookups]

    @property
    def _own(self) -> list[str]:
        return [*self._samples, *self._scores, *self._flags]

    def tables_of(self, used: Sequence[str]) -> set[str]:
        """Further tables that the columns in `used` lie in."""
        wanted = {name.lower() for name in used}
        return {look.table for name, look in self._lookups.items() if name.lower() in wanted}

    def add_keys(self, column: str, source: str) -> None:
        """Offer the boolean `column`: whether the sample's key is in `source`.

        Args:
            source: what stands behind FROM and has a column `key` without repeats.
        """
        self._joined[column] = source

    def add_selection(self, column: str, name: str) -> None:
        """Offer the boolean `column`: whether the sample is in the stored selection `name`.

        Raises:
            ConfigError: there is no such selection.
        """
        path = self.dataset.selection_path(name)
        # By its name alone: as a path it might lead to another dataset's keys.
        if name not in self.dataset.selections():
            known = ", ".join(self.dataset.selections()) or "none yet"
            raise ConfigError(f"There is no selection {name!r} (selections: {known}).")
        refuse_damaged(path)
        self.add_keys(column, parquet_scan(path))

    def source(self, used: Sequence[str]) -> str:
        """A SELECT of `key` and the columns in `used`, one row a stored sample."""
        wanted = {name.lower() for name in used} | {"key"}
        if self._copy is None or wanted & {name.lower() for name in self._own} - set(self._copied):
            columns, tables = self._from_tables(wanted)
        else:
            columns = [
                f"scores.{self._copied[name]}" for name in sorted(wanted & set(self._copied))
            ]
            tables = f"{self._copy} scores"
            wanted -= set(self._copied)
        joined = [name for name in self._joined if name.lower() in wanted]
        for index, name in enumerate(joined):
            columns.append(f"_k{index}.key IS NOT NULL AS {sql_name(name)}")
            source = self._joined[name]
            tables += f" LEFT JOIN {source} _k{index} ON _k{index}.key = scores.key"
        looked = {name: look for name, look in self._lookups.items() if name.lower() in wanted}
        columns += [f"{look.value} AS {sql_name(name)}" for name, look in looked.items()]
        for join in dict.fromkeys(look.join for look in looked.values()):
            tables += f" {join}"
        return f"SELECT {', '.join(columns)} FROM {tables}"

    def _from_tables(self, wanted: set[str]) -> tuple[list[str], str]:
        """Columns and FROM of what stands in samples, scores and duplicates."""
        mine = [name for name in self._samples if name.lower() in wanted and name != "key"]
        scored = [name for name in self._scores if name.lower() in wanted]
        flags = [name for name in self._flags if name in wanted]
        columns = ["scores.key AS key"]
        columns += [f"{self._samples[name]} AS {sql_name(name)}" for name in mine]
        for name in scored:
            value = finite(f"scores.{sql_name(name)}", self._kinds[name])
            columns.append(f"{value} AS {sql_name(name)}")
        columns += [f"coalesce(_flags.{name}, false) AS {name}" for name in flags]
        tables = "scores"
        if mine or not self._scores_are_complete():
            tables += " JOIN samples ON samples.key = scores.key AND samples.status = 'stored'"
        if flags:
            tables += " LEFT JOIN _flags ON _flags.key = scores.key"
        return columns, tables

    def lock(self) -> SampleTables:
        """From here on the connection reads the dataset's own files and no other."""
        folders = [self.dataset.directory / name for name in ("tables", "selections")]
        allowed = ", ".join(sql_text(plain_path(folder)) for folder in folders)
        self.connection.execute(f"SET allowed_directories = [{allowed}]")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")
        return self

    def _scores_are_complete(self) -> bool:
        """Whether the scores have as many rows as there are stored samples, hence the same ones.

        A score of a sample that is not stored cannot be told apart then, but nothing writes one:
        every shard's scores are those of the stored samples at that time.
        """
        if self._complete is None:
            counted = self.connection.execute(
                "SELECT (SELECT count(*) FROM samples WHERE status = 'stored') = "
                "(SELECT count(*) FROM scores)"
            ).fetchall()
            self._complete = bool(counted[0][0])
        return self._complete

    def _types(self, view: str) -> dict[str, str]:
        described = self.connection.execute(f"DESCRIBE {view}").fetchall()
        return {str(row[0]): str(row[1]) for row in described}

    def _make_flags(self) -> None:
        present = {
            row[0]
            for row in self.connection.execute("SELECT DISTINCT method FROM duplicates").fetchall()
        }
        widest = next((method for method in reversed(METHODS) if method in present), METHODS[0])
        flags = ", ".join(
            f"coalesce(bool_or(method = '{method}' AND NOT kept), false) AS duplicate_{method}"
            for method in (*METHODS, SEMDEDUP)
        )
        self.connection.execute(
            f"CREATE VIEW _flags AS SELECT *, duplicate_{widest} AS duplicate FROM "
            f"(SELECT key, {flags} FROM duplicates GROUP BY key)"
        )


def tables_version(dataset: Dataset, tables: Sequence[str] = TABLES) -> str:
    """A fingerprint of tables (those that a selection reads): changes whenever one of them does.

    Hashes the name, size and footer of each Parquet file (its statistics and column checksums of
    every row group), not the rows: milliseconds a file.
    """
    marks: list[Any] = []
    for table in tables:
        folder = dataset.table_directory(table)
        for path in dataset.table_files(table):
            marks.append(
                [table, str(path.relative_to(folder)), path.stat().st_size, file_mark(path)]
            )
    return fingerprint(marks)


def file_mark(path: Path, size: int = 1 << 16) -> str:
    """Hex sha256 of a file's last 64 KiB, where Parquet keeps its footer."""
    with open(path, "rb") as opened:
        opened.seek(max(0, path.stat().st_size - size))
        return hashlib.sha256(opened.read()).hexdigest()
