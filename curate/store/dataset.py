"""The contract of a dataset directory: its layout, its tables, their schemas and versions.

    DIR/
      dataset.json                    contract version and what made the dataset
      README.md                       tells `datasets.load_dataset(DIR)` of the tables
      input/00000.parquet             the rows of the input list, cut into shards, in input order;
                                      alt_texts holds the list of a row that came with several
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
      search/                         centroids that later searches use again
      references/NAME/                fingerprints of a folder of reference pictures
      tables/captions/SOURCE/00000.parquet   one row a caption (long format), SOURCE = who wrote it
      selections/NAME.parquet         the keys of a selection; NAME.json holds its SQL and funnel
      retry/00000/                    a shard's next state while --retry-failed writes it
      .locks/                         who writes at this moment, see curate.store.lock

Everybody reads and writes through this module. A table is a folder of Parquet files, one a shard,
each written atomically, so any of DuckDB, pandas and `datasets.load_dataset("parquet", ...)`
reads it as it lies, at any moment of a run. The schema's version stands in every file's metadata.

Keys are 32 hex digits (128 bits) of a hash of URL and alt text (of a picture that came without a
URL: its place in the input, see docs/inputs.md): stable however the input is sorted or cut.
At a billion samples the chance that any two keys collide is below 1e-20.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import (
    atomic_path,
    fingerprint,
    plain_path,
    read_record,
    remove_leftovers,
    write_json,
)
from curate.store.lock import FOLDER as LOCKS

if TYPE_CHECKING:
    import duckdb

CONTRACT_VERSION = 1

# Where a retry prepares a shard's next tar and samples table, and the note that both are complete.
RETRY_DIRECTORY, RETRY_NOTE = "retry", "done.json"

STORED = "stored"
FAILED = "failed"

SAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),  # number of the row in the input list, from 0
        ("url", pa.string()),
        ("alt_text", pa.string()),  # exactly as it came, of several the first; null for none
        ("status", pa.string()),  # "stored" or "failed"
        ("reason", pa.string()),  # why it failed: one of curate.base.reasons; null where stored
        ("detail", pa.string()),  # the error's own words, for a person
        ("original_width", pa.int32()),  # pixels, upright
        ("original_height", pa.int32()),
        ("original_format", pa.string()),  # "jpeg", "png", ...: sniffed, not believed
        ("original_bytes", pa.int64()),
        ("width", pa.int32()),  # pixels as stored in the shard
        ("height", pa.int32()),
        ("format", pa.string()),  # file extension in the shard
        ("sha256", pa.string()),  # of the original bytes, hex
    ]
)

# Scorers add their own columns behind the key; see curate.scoring.scorers.
SCORES = pa.schema([("key", pa.string())])

# One row a scored caption; scorers add their columns behind, see curate.scoring.captions.
CAPTION_SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("kind", pa.string()),
        ("source", pa.string()),  # who wrote it
        ("sample_index", pa.int32()),
        ("text_sha256", pa.string()),  # of the text that was scored, first 16 hex digits
    ]
)


EMBEDDINGS = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.list_(pa.float16())),  # L2-normalised
        ("text", pa.list_(pa.float16())),  # of the alt text, L2-normalised; null without a text
        # image_NAME and text_NAME behind them, of further CLIP models
    ]
)

FINGERPRINTS = pa.schema(
    [
        ("key", pa.string()),
        ("pixel_sha256", pa.string()),  # of the decoded RGB pixels with their size
        ("phash", pa.list_(pa.uint64())),  # 64-bit perceptual hashes, one a view
        ("descriptor", pa.list_(pa.float16())),  # 64, unit length; duplicates.copy_descriptor
        ("thumbnail", pa.binary()),  # small picture, to verify candidates with
    ]
)

DUPLICATE_PAIRS = pa.schema(
    [
        ("method", pa.string()),  # "exact", "near", "embedding" or "semdedup"
        ("key_a", pa.string()),  # key_a < key_b
        ("key_b", pa.string()),
        ("distance", pa.float32()),  # exact: 0; near: Hamming bits; embedding: 1 - cosine
    ]
)

# Levels are cumulative: "near" groups by exact and near pairs, "embedding" by all three kinds.
# "semdedup" stands beside them: exact pairs and cosines alone, nothing verified.
DUPLICATES = pa.schema(
    [
        ("method", pa.string()),
        ("key", pa.string()),
        ("group", pa.string()),  # key of the sample that is kept for the group
        ("kept", pa.bool_()),  # whether this is the kept sample itself
        ("distance", pa.float32()),  # to the kept sample it is near
    ]
)

# By which methods a sample was compared with all others; see curate.duplicates.earlier_search.
DUPLICATE_SEARCHED = pa.schema(
    [
        ("key", pa.string()),
        ("pixels", pa.uint64()),  # the start of pixel_sha256: which picture was compared
        ("near", pa.bool_()),
        ("embedding", pa.bool_()),
        ("semdedup", pa.bool_()),
    ]
)

# Samples that show a picture of a reference set: evaluation images, or an earlier dataset.
REFERENCE_MATCHES = pa.schema(
    [
        ("key", pa.string()),
        ("purpose", pa.string()),  # "contaminated" or "known": the column of a selection
        ("references", pa.string()),  # name of the reference set
        ("reference", pa.string()),  # path in its folder, or key in its dataset
        ("method", pa.string()),  # "exact" or "near"
        ("distance", pa.float32()),  # exact: 0; near: Hamming bits
    ]
)

CAPTIONS = pa.schema(
    [
        ("key", pa.string()),
        ("kind", pa.string()),  # "alt", "short", "descriptive" or a user template's name
        ("sample_index", pa.int32()),  # 0, 1, ... where an image has several: drawn, or alt texts
        ("text", pa.string()),  # the caption to train on; null unless status is "ok"
        ("raw_text", pa.string()),  # what the captioner said, before repair
        ("status", pa.string()),  # "ok", "rejected" (by a gate) or "failed"
        ("reason", pa.string()),  # the gate or error that decided; null where ok
        ("detail", pa.string()),  # an error's own words; null where there was none
        ("flags", pa.list_(pa.string())),  # every gate that spoke, also after repair
        ("finish_reason", pa.string()),  # "stop" or "length"
        ("attempts", pa.int32()),
        ("words", pa.int32()),  # of the repaired text, accepted or not, as the measures below
        ("clip_tokens", pa.int32()),  # CLIP's BPE, start and end included; above 77 is truncated
        ("t5_tokens", pa.int32()),  # end included; null without a T5 tokenizer
        ("prompt_tokens", pa.int32()),  # read by the captioner, picture included
        ("output_tokens", pa.int32()),  # written by it, end token included
        ("clip_similarity", pa.float32()),  # cosine of picture and caption, first 77 tokens
        ("clip_sentence_mean", pa.float32()),  # of picture and each sentence: nothing is cut off
        ("clip_sentence_min", pa.float32()),
        ("alt_clip_similarity", pa.float32()),  # mean over the alt text's sentences
        ("language", pa.string()),  # ISO 639-1 as detected; null where too short to tell
        (
            "signature",
            pa.binary(),
        ),  # MinHash of its word 3-grams, see recaption.captioning.signature
        ("image_sha256", pa.string()),  # of the picture's bytes in the shard
        ("image_width", pa.int32()),  # of that picture, in pixels
        ("image_height", pa.int32()),
        ("sent_width", pa.int32()),  # as the captioner was shown it
        ("sent_height", pa.int32()),
        ("engine", pa.string()),  # "transformers", "http", ...; "none" for alt texts
        ("model", pa.string()),
        ("model_revision", pa.string()),  # hub revision, or the weights' sha256 for a local folder
        ("prompt_id", pa.string()),
        ("prompt_sha256", pa.string()),
        ("alt_text_shown", pa.bool_()),
        ("prompt_variables", pa.string()),  # JSON of the other values that were shown
        ("sampling", pa.string()),  # JSON of the decoding parameters
        ("seed", pa.int64()),
        ("latency_seconds", pa.float32()),  # of all tries; a batch's time is shared by its rows
        ("versions", pa.string()),  # JSON of the package versions
        ("created_at", pa.timestamp("ms", tz="UTC")),
    ]
)
CAPTIONS_VOLATILE = ("latency_seconds", "created_at")
"""Columns in which two equal runs differ."""

SELECTION = pa.schema([("key", pa.string())])

SCHEMAS: Mapping[str, pa.Schema] = {
    "samples": SAMPLES,
    "scores": SCORES,
    "embeddings": EMBEDDINGS,
    "fingerprints": FINGERPRINTS,
    "duplicate_pairs": DUPLICATE_PAIRS,
    "duplicates": DUPLICATES,
    "duplicate_searched": DUPLICATE_SEARCHED,
    "reference_matches": REFERENCE_MATCHES,
    "captions": CAPTIONS,
    "caption_scores": CAPTION_SCORES,
}
SCHEMA_VERSIONS: Mapping[str, int] = dict.fromkeys(SCHEMAS, 1) | {
    "fingerprints": 2,
    "captions": 2,
}

# Tables that let a writer add columns behind the declared ones.
_OPEN_TABLES = frozenset({"scores", "embeddings", "caption_scores"})
# Tables about the dataset as a whole: one file named all.parquet.
WHOLE = "all"


def sample_key(url: str | None, alt_text: str | None, occurrence: int = 0) -> str:
    """The stable key of an input row: 32 hex digits of blake2b over URL, alt text and occurrence.

    Args:
        url, alt_text: as they came; a missing one hashes differently from an empty one.
        occurrence: 0 for the first row with this URL and text, 1 for the second, and so on, so
            that every input row has a key of its own.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (url, alt_text):
        # A length prefix keeps ("ab", "c") apart from ("a", "bc").
        encoded = b"-" if part is None else b"%d:" % len(part) + part.encode("utf-8", "replace")
        digest.update(encoded)
    if occurrence:
        digest.update(b"#%d" % occurrence)
    return digest.hexdigest()


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

    def write_selection(self, name: str, keys: pa.Array, record: Mapping[str, Any]) -> Path:
        """Store a selection: keys as Parquet, its SQL and counts as JSON beside it."""
        path = self.selection_path(name)
        # The record first: a reader that sees the keys can rely on the record being there.
        write_json(path.with_suffix(".json"), dict(record))
        with atomic_path(path) as temporary:
            pq.write_table(_versioned("selections", pa.table([keys], schema=SELECTION)), temporary)
        return path

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
        for table in tables or SCHEMAS:
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
                    f'NULL::{_duckdb_type(field.type)} AS "{field.name}"'
                    for field in SCHEMAS[table]
                )
                connection.execute(f"CREATE VIEW {table} AS SELECT {columns} WHERE false")
        return connection


def parquet_scan(files: Path | Iterable[Path], **options: bool) -> str:
    """What stands behind FROM in DuckDB's SQL to read Parquet files: these, all, nothing else.

    Every scan is made here. DuckDB by itself takes a path for a pattern, so that neighbours are
    read too, and a folder above that is named `width=7` for a column that hides the file's own.

    Args:
        files: one or several, at least one; each is read as it is named (see plain_path).
        options: further arguments of read_parquet, such as `union_by_name` or `filename` (which
            tells of a file its plain path: compare its name alone).
    """
    paths = [files] if isinstance(files, Path) else list(files)
    listed = ", ".join(sql_text(plain_path(path)) for path in paths)
    given = {"hive_partitioning": False, **options}
    return f"read_parquet([{listed}], {', '.join(f'{k} = {v}' for k, v in given.items())})"


def sql_text(text: Path | str) -> str:
    """A text, or a path as it stands, as a literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"


def parquet_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The rows of one file of ours, with its own columns (of folders above that are named
    key=value, Arrow's datasets would make some).

    Raises:
        FileNotFoundError: it is missing.
        DatasetError: it is unreadable.
    """
    try:
        with pq.ParquetFile(path) as parquet:
            return parquet.read(columns=columns)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"{path} is unreadable ({error}); delete it and run the same command again."
        ) from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, so that a difference is named and not its whole surroundings.

    Tuples become lists, as JSON stores them.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def claim_directory(
    directory: Path,
    record_path: Path,
    kind: str,
    identity: Mapping[str, Any],
    record: Mapping[str, Any],
) -> bool:
    """Make `directory` belong to the settings in `identity`, or check that it already does.

    Returns:
        True when it was claimed now, False when the same settings had claimed it before.

    Raises:
        DatasetError: other settings own it, or it holds files that are none of ours. Nothing is
            overwritten in either case.
    """
    mark = fingerprint(identity)
    if record_path.exists():
        stored = read_record(record_path)
        if stored.get("identity_fingerprint") == mark:
            remove_leftovers(directory, below=True)  # only now is it known to be ours
            return False
        before, now = _flat(stored.get("identity", {})), _flat(identity)
        differing = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
        changes = "; ".join(
            f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in differing[:3]
        )
        raise DatasetError(
            f"{directory} is a {kind} of other settings ({changes}); choose another --out "
            f"or delete it."
        )
    if directory.exists() and (
        not directory.is_dir() or any(path.name != LOCKS for path in directory.iterdir())
    ):
        raise DatasetError(
            f"{directory} exists and is not a {kind} of ours; choose an empty or new --out."
        )
    write_json(
        record_path,
        {
            "kind": kind,
            "contract_version": CONTRACT_VERSION,
            "identity": dict(identity),
            "identity_fingerprint": mark,
            **record,
        },
    )
    return True


def conform(table: str, rows: pa.Table) -> pa.Table:
    """`rows` in the declared column order and types, with the schema's version in the metadata.

    Raises:
        DatasetError: a declared column is missing, or an undeclared one is there.
    """
    schema = SCHEMAS[table]
    missing = [name for name in schema.names if name not in rows.column_names]
    extra = [name for name in rows.column_names if name not in schema.names]
    if missing:
        raise DatasetError(f"Table {table} needs the columns {', '.join(missing)}.")
    if extra and table not in _OPEN_TABLES:
        raise DatasetError(f"Table {table} declares no columns {', '.join(extra)}.")
    columns = [rows.column(field.name).cast(field.type) for field in schema]
    columns += [rows.column(name) for name in extra]
    fields = [*schema, *(rows.schema.field(name) for name in extra)]
    # A writer's own notes on its columns (keys that start with "caplab_") stay with the table.
    return _versioned(table, pa.table(columns, schema=pa.schema(fields, metadata=_notes(rows))))


def empty_directory(directory: Path) -> None:
    """Remove a scratch directory of ours, if it is there."""
    shutil.rmtree(directory, ignore_errors=True)


def _versioned(table: str, rows: pa.Table) -> pa.Table:
    version = SCHEMA_VERSIONS.get(table, 1)
    return rows.replace_schema_metadata(
        {
            **_notes(rows),
            b"caplab_table": table.encode(),
            b"caplab_schema_version": str(version).encode(),
        }
    )


def _notes(rows: pa.Table) -> dict[bytes, bytes]:
    metadata = rows.schema.metadata or {}
    return {name: text for name, text in metadata.items() if name.startswith(b"caplab_")}


def _duckdb_type(kind: pa.DataType) -> str:
    """The name of a column's type in SQL (registering Arrow tables would import pandas)."""
    if pa.types.is_list(kind):
        return f"{_duckdb_type(kind.value_type)}[]"
    return _DUCKDB_TYPES[kind]


_DUCKDB_TYPES: Mapping[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.timestamp("ms", tz="UTC"): "TIMESTAMPTZ",
}
