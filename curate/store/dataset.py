"""The contract of a dataset directory: its layout, its tables, their schemas and versions.

    DIR/
      dataset.json                    contract version and what made the dataset
      README.md                       tells `datasets.load_dataset(DIR)` of the tables
      input/00000.parquet             the rows of the input list, cut into shards, in input order;
                                      alt_texts holds the list of a row that came with several
      input/input.json                what was taken in, from where, and how it was read
      input/input-00012.json          the same of a list that joined later (--extend), by the first
                                      of its shards; dataset.json tells of all of them in `lists`
      input/left_out.jsonl            the names of the input's files that are no rows, and why
      shards/00000.tar                WebDataset: KEY.jpg (or png, webp), KEY.txt, KEY.json
      tables/samples/00000.parquet    one row for EVERY input row, stored or failed, with its reason
      tables/scores/00000.parquet     one row a stored sample, one column a score
      tables/embeddings/00000.parquet image and text embedding of each stored sample, float16
      tables/caption_scores/SOURCE/00000.parquet   how well each stored caption fits its picture
      tables/fingerprints/00000.parquet   pixel hash, perceptual hashes, copy descriptor, thumbnail
      tables/duplicate_pairs/all.parquet  every pair found, with method and distance
      tables/duplicates/all.parquet   every sample that is in a group, with the sample kept for it
      tables/duplicate_searched/all.parquet   which samples were compared, for the next search
      tables/reference_matches/NAME.parquet   samples that show a picture of the reference set NAME
      search/                         centroids that later searches use again, and the index of
                                      `caplab search`: all of it can be made anew
      references/NAME/                fingerprints of a folder of reference pictures
      tables/captions/SOURCE/00000.parquet   one row a caption (long format), SOURCE = who wrote it
      selections/NAME.parquet         the keys of a selection, and weights where it is balanced;
                                      NAME.json holds its SQL and funnel
      retry/00000/                    a shard's next state while --retry-failed writes it
      joining/                        the rows of a further list, while --extend reads it
      .locks/                         who writes at this moment, see curate.store.lock

Everybody reads and writes through this module; the schemas stand in curate.store.contract. A table
is a folder of Parquet files, one a shard, each written atomically, so any of DuckDB, pandas and
`datasets.load_dataset("parquet", ...)` reads it as it lies, at any moment of a run. The schema's
version stands in every file's metadata.

Keys are 32 hex digits (128 bits) of a hash of URL and alt text (of a picture that came without a
URL: its place in the input, see docs/inputs.md): stable however the input is sorted or cut.
At a billion samples the chance that any two keys collide is below 1e-20.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, read_record, write_json
from curate.store.claims import claim_directory
from curate.store.contract import (
    CONTRACT_VERSION,
    RETRY_DIRECTORY,
    RETRY_NOTE,
    SCHEMAS,
    SELECTION,
    WEIGHTED_SELECTION,
    WHOLE,
    conform,
    versioned,
)
from curate.store.scans import duckdb_type, parquet_rows, parquet_scan

if TYPE_CHECKING:
    import duckdb


class Dataset:
    """A dataset directory. Cheap to make, holds no open files, safe to send to a worker."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).absolute()

    def __repr__(self) -> str:
        return f"Dataset({str(self.directory)!r})"

    # ---- making and opening -------------------------------------------------------------------

    @classmethod
    def open(cls, directory: Path | str) -> Dataset:
        """Open an existing dataset.

        Raises:
            DatasetError: the directory is no dataset, or was written under another contract.
        """
        dataset = cls(directory)
        if not dataset.record_path.exists():
            raise DatasetError(
                f"{dataset.directory} is not a dataset; make one with "
                f"`caplab curate INPUT --out {directory}`."
            )
        if any((dataset.directory / RETRY_DIRECTORY).glob(f"*/{RETRY_NOTE}")):
            raise DatasetError(
                f"{dataset.directory} was left in the middle of a retry; the command that made it, "
                f"`caplab curate INPUT --out {directory}`, puts it in order."
            )
        version = dataset.record().get("contract_version")
        if version != CONTRACT_VERSION:
            raise DatasetError(
                f"{dataset.directory} was written under contract version {version}, this is "
                f"version {CONTRACT_VERSION}; curate the input again into a new directory."
            )
        return dataset

    @classmethod
    def create(
        cls, directory: Path | str, identity: Mapping[str, Any], record: Mapping[str, Any]
    ) -> Dataset:
        """Create a dataset, or continue one that the same settings made.

        Args:
            identity: the settings that decide what is made (Settings.identity()).
            record: provenance to store beside it.

        Raises:
            DatasetError: the directory holds something else, or a dataset of other settings.
        """
        dataset = cls(directory)
        new = claim_directory(dataset.directory, dataset.record_path, "dataset", identity, record)
        if new or not dataset.record_copy.exists():
            write_json(dataset.record_copy, dataset.record())
        return dataset

    @property
    def record_path(self) -> Path:
        """dataset.json."""
        return self.directory / "dataset.json"

    @property
    def record_copy(self) -> Path:
        """The same once more: without its record a dataset is a heap of files."""
        return self.directory / "input" / "dataset.json"

    def record(self) -> dict[str, Any]:
        """What made the dataset: settings, versions, weights."""
        return read_record(self.record_path)

    # ---- shards -------------------------------------------------------------------------------

    def input_path(self, shard: str) -> Path:
        """The rows of the input list that belong to `shard`."""
        return self.directory / "input" / f"{shard}.parquet"

    def shard_path(self, shard: str) -> Path:
        """The WebDataset tar of `shard`."""
        return self.directory / "shards" / f"{shard}.tar"

    def shards(self) -> list[str]:
        """Names of all shards of the input list, in order, such as ["00000", "00001"]."""
        return sorted(path.stem for path in (self.directory / "input").glob("[0-9]*.parquet"))

    def list_records(self) -> list[Path]:
        """The records of the lists that were taken in, in the order in which they joined."""
        folder = self.directory / "input"
        first = folder / "input.json"
        later = folder.glob("input-[0-9]*.json")
        return [
            *([first] if first.exists() else []),
            *sorted(later, key=lambda path: int(path.stem.partition("-")[2])),
        ]

    # ---- tables -------------------------------------------------------------------------------

    def table_directory(self, table: str, source: str | None = None) -> Path:
        """The folder of `table`; captions have one folder a source (who wrote them)."""
        if table not in SCHEMAS:
            raise DatasetError(f"There is no table {table!r}; tables are {', '.join(SCHEMAS)}.")
        base = self.directory / "tables" / table
        return base / source if source is not None else base

    def table_path(self, table: str, shard: str = WHOLE, source: str | None = None) -> Path:
        """The file of `table` that holds `shard`."""
        return self.table_directory(table, source) / f"{shard}.parquet"

    def has_shard(self, table: str, shard: str = WHOLE, source: str | None = None) -> bool:
        """Whether `table` holds `shard`; a file exists only when it is complete."""
        return self.table_path(table, shard, source).exists()

    def has_table(self, table: str) -> bool:
        """Whether `table` holds anything."""
        return bool(self.table_files(table))

    def write_table(
        self, table: str, rows: pa.Table, shard: str = WHOLE, source: str | None = None
    ) -> Path:
        """Write one shard of `table` atomically, in the declared schema.

        Raises:
            DatasetError: a declared column is missing, or one is there that is not declared.
        """
        path = self.table_path(table, shard, source)
        conformed = conform(table, rows)
        with atomic_path(path) as temporary:
            pq.write_table(conformed, temporary, compression="zstd")
        return path

    def read_table(
        self,
        table: str,
        shard: str = WHOLE,
        source: str | None = None,
        columns: list[str] | None = None,
    ) -> pa.Table:
        """Read one shard of `table`.

        Raises:
            DatasetError: it is missing or unreadable.
        """
        path = self.table_path(table, shard, source)
        try:
            return parquet_rows(path, columns)
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing; run the stage that writes {table}.") from error

    def table_files(self, table: str, source: str | None = None) -> list[Path]:
        """The files of `table` in order; without a source those of all its sources."""
        folder = self.table_directory(table, source)
        return sorted(path for depth in ("", "*/") for path in folder.glob(f"{depth}[!.]*.parquet"))

    def scan(self, table: str, source: str | None = None, **options: bool) -> str:
        """What stands behind FROM to read `table`, which has at least one file: `parquet_scan`."""
        return parquet_scan(self.table_files(table, source), **options)

    def caption_sources(self) -> list[str]:
        """Who wrote captions: "alt" and one name a captioner run.

        One that has only begun has a folder and no file yet, and is not among them.
        """
        folders = self.table_directory("captions").glob("[!.]*")
        return sorted(folder.name for folder in folders if any(folder.glob("[!.]*.parquet")))

    # ---- selections ---------------------------------------------------------------------------

    def selection_path(self, name: str) -> Path:
        """The Parquet file with the keys of selection `name`."""
        return self.directory / "selections" / f"{name}.parquet"

    def selections(self) -> list[str]:
        """Names of all selections."""
        return sorted(path.stem for path in (self.directory / "selections").glob("[!.]*.parquet"))

    def write_selection(
        self,
        name: str,
        keys: pa.Array,
        record: Mapping[str, Any],
        weights: pa.Array | None = None,
    ) -> Path:
        """Store a selection: keys and weights as Parquet, its SQL and counts as JSON beside it.

        Args:
            weights: how much each row counts, where the selection is balanced; a mean of 1.
        """
        path = self.selection_path(name)
        rows = pa.table([keys], schema=SELECTION)
        if weights is not None:
            rows = pa.table([keys, weights], schema=WEIGHTED_SELECTION)
        # The record first: a reader that sees the keys can rely on the record being there.
        write_json(path.with_suffix(".json"), dict(record))
        with atomic_path(path) as temporary:
            pq.write_table(versioned("selections", rows), temporary)
        return path

    def is_weighted(self, name: str) -> bool:
        """Whether selection `name`, which exists and is whole, has a `weight` beside its keys."""
        return "weight" in pq.read_schema(self.selection_path(name)).names

    def selection_keys(self, name: str) -> list[str]:
        """The keys of a selection, sorted.

        Raises:
            DatasetError: there is no such selection.
        """
        path = self.selection_path(name)
        if name not in self.selections():
            known = ", ".join(self.selections()) or "none yet; make one with `caplab select`"
            raise DatasetError(f"There is no selection {name!r} (selections: {known}).")
        keys: list[str] = sorted(parquet_rows(path, ["key"]).column("key").to_pylist())
        return keys

    def selection_record(self, name: str) -> dict[str, Any]:
        """SQL, counts and funnel of a selection."""
        return read_record(self.selection_path(name).with_suffix(".json"))

    # ---- SQL ----------------------------------------------------------------------------------

    def connect(
        self, tables: Iterable[str] = (), shard: str | None = None
    ) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB connection with one view a table, over the Parquet files.

        Tables that are still empty appear as empty views with the declared columns.

        Args:
            tables: the tables that are needed; by default all.
            shard: only this shard of those tables that hold it; None means all shards.
        """
        import duckdb

        connection = duckdb.connect()
        connection.execute("SET enable_progress_bar = false")
        # A table is a file a shard; without this every query reads every footer again.
        connection.execute("SET parquet_metadata_cache = true")
        self.add_views(connection, tables or SCHEMAS, shard)
        return connection

    def add_views(
        self,
        connection: duckdb.DuckDBPyConnection,
        tables: Iterable[str],
        shard: str | None = None,
    ) -> None:
        """Make the views that `connect` offers on a connection that is there."""
        for table in tables:
            if shard is not None and self.has_shard(table, shard):
                files = [self.table_path(table, shard)]
            else:
                files = self.table_files(table)
            if files:
                connection.execute(
                    f"CREATE VIEW {table} AS SELECT * FROM "
                    f"{parquet_scan(files, union_by_name=True)}"
                )
            else:
                columns = ", ".join(
                    f'NULL::{duckdb_type(field.type)} AS "{field.name}"' for field in SCHEMAS[table]
                )
                connection.execute(f"CREATE VIEW {table} AS SELECT {columns} WHERE false")
