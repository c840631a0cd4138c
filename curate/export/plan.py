"""Which samples are exported, in which order, each with which caption; and who is left out.

All of it is a function of the dataset's tables and the settings. It works shard by shard and then
in DuckDB under a memory limit, spilling to disk, so memory does not grow with the dataset. Cost:
the headers of every tar that holds a selected sample, one sort and one join of the captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, plain_path, read_json, write_json
from curate.base.progress import progress
from curate.export.pictures import picture_places
from curate.export.settings import ExportSettings
from curate.store.caption_blend import (
    BLEND,
    CHOICE,
    EXPORT_ORDER,
    blend_bounds,
    blend_order,
    drawn_kind,
    fallback_order,
    hash_bits,
    hash_uniform,
    key_numbers,
)
from curate.store.captions import accepted_sql, caption_writers
from curate.store.dataset import Dataset
from curate.store.scans import parquet_rows, parquet_scan, sql_name, sql_text

if TYPE_CHECKING:
    import duckdb

# Scores that say how the scoring went, or repeat a text.
_NOT_SCORES = frozenset({"key", "decode_error", "text_normalised", "text_hash"})
_SAMPLE_COLUMNS = ("url", "alt_text", "width", "height", "original_width", "original_height")
_BATCH = 50_000


@dataclass(frozen=True)
class Plan:
    """A finished plan: one Parquet file a shard of the export, and one of those left out."""

    directory: Path
    samples: int
    shards: int
    left_out: dict[str, int]
    """Reason -> samples."""
    kinds: dict[str, int]
    """Caption kind -> samples that take it."""

    def shard_rows(self, number: int) -> pa.Table:
        """The samples of one shard, in order."""
        return parquet_rows(self.files[number])

    @property
    def files(self) -> list[Path]:
        """The Parquet files of all shards, in order."""
        folder = self.directory / "shards"
        return [folder / f"{number:05d}.parquet" for number in range(self.shards)]

    @property
    def left_out_path(self) -> Path:
        """Parquet with key and reason of every selected sample that is left out."""
        return self.directory / "left_out.parquet"


def make_plan(dataset: Dataset, settings: ExportSettings, directory: Path) -> Plan:
    """Plan an export in `directory`, or read the plan that lies there.

    Raises:
        ConfigError: a caption kind that nobody wrote, or that several wrote.
        DatasetError: no such selection, it is empty, or nothing of it can be exported.
    """
    record = directory / "plan.json"
    if record.exists():
        return Plan(directory, **read_json(record))
    writers = caption_writers(dataset, blend_order(settings.captions), settings.caption_sources)
    keys = dataset.selection_path(settings.selection)
    with _connect(directory, settings) as connection:
        _draw(connection, dataset, keys, settings, directory)
        _take_captions(connection, dataset, settings, writers)
        scores = _score_columns(dataset) if settings.scores else []
        if dataset.is_weighted(settings.selection):
            scores = [name for name in scores if name != "weight"]
        samples, shards = _write_shards(connection, dataset, settings, directory, scores)
        left_out = _write_left_out(connection, directory)
        kinds = connection.execute(
            "SELECT kind, count(*) FROM taken SEMI JOIN places USING (key) GROUP BY kind ORDER BY 1"
        ).fetchall()
    if not samples:
        reasons = (
            ", ".join(f"{name} {count:,}" for name, count in left_out.items()) or "it is empty"
        )
        raise DatasetError(
            f"Nothing of the selection {settings.selection!r} can be exported ({reasons})."
        )
    plan = Plan(directory, samples, shards, left_out, dict(kinds))
    write_json(
        record,
        {"samples": samples, "shards": shards, "left_out": left_out, "kinds": dict(kinds)},
    )
    return plan


def _connect(directory: Path, settings: ExportSettings) -> duckdb.DuckDBPyConnection:
    import duckdb

    directory.mkdir(parents=True, exist_ok=True)
    scratch = plain_path(directory / "duckdb")
    scratch.mkdir(exist_ok=True)
    for leftover in scratch.iterdir():  # of a run that was killed
        leftover.unlink(missing_ok=True)
    config: dict[str, Any] = {
        "threads": 1,  # an order of rows that does not depend on the machine
        "memory_limit": settings.memory_limit,
        "temp_directory": str(scratch),
    }
    # In memory, spilling beyond the limit: a database's file cannot lie under every name.
    connection = duckdb.connect(config=config)
    connection.execute("SET enable_progress_bar = false")
    return connection


# ---- draws ------------------------------------------------------------------------------------


def _draw(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    keys: Path,
    settings: ExportSettings,
    directory: Path,
) -> None:
    """Tables `drawn` (key, kind, choice, place in the order) and `places` of the pictures."""
    if not keys.exists():
        dataset.selection_keys(settings.selection)  # says what selections there are
    weight = ", weight" if dataset.is_weighted(settings.selection) else ""
    connection.execute(
        f"CREATE TABLE selected AS SELECT DISTINCT key, shard, status{weight} FROM "
        f"(SELECT key{weight} FROM {parquet_scan(keys)}) LEFT JOIN "
        f"(SELECT key, shard, status FROM {dataset.scan('samples')}) USING (key)"
    )
    connection.execute(
        "CREATE TABLE drawn (key VARCHAR, kind VARCHAR, choice DOUBLE, place UBIGINT)"
    )
    order = blend_order(settings.captions)
    bounds = blend_bounds(settings.captions)
    reading = connection.cursor()
    rows = reading.execute("SELECT key FROM selected ORDER BY key")
    while batch := rows.fetchmany(_BATCH):
        own = [key for (key,) in batch]
        numbers = key_numbers(own)
        drawn = drawn_kind(bounds, hash_uniform(numbers, 0, settings.seed, BLEND))
        table = pa.table(
            {
                "key": own,
                "kind": [order[index] for index in drawn],
                "choice": hash_uniform(numbers, 0, settings.seed, CHOICE),
                "place": hash_bits(numbers, 0, settings.seed, EXPORT_ORDER),
            }
        )
        connection.register("_drawn", table)
        connection.execute("INSERT INTO drawn SELECT * FROM _drawn")
        connection.unregister("_drawn")
    shards = [s for (s,) in connection.execute(
        "SELECT DISTINCT shard FROM selected WHERE status = 'stored' ORDER BY 1"
    ).fetchall()]  # fmt: skip
    folder = directory / "places"
    with progress(len(shards), "finding pictures", "shard") as bar:
        for shard in shards:
            path = folder / f"{shard}.parquet"
            if not path.exists():
                inside = connection.execute(
                    "SELECT key FROM selected WHERE shard = $shard AND status = 'stored'",
                    {"shard": shard},
                ).fetchall()
                found = picture_places(dataset, shard, {key for (key,) in inside})
                with atomic_path(path) as temporary:
                    pq.write_table(found, temporary)
            bar.update(1)
    if shards:
        places = parquet_scan(folder / f"{shard}.parquet" for shard in shards)
        connection.execute(f"CREATE TABLE places AS SELECT * FROM {places}")
    else:
        raise DatasetError(
            f"The selection {settings.selection!r} holds no stored sample; select again."
        )


# ---- captions ---------------------------------------------------------------------------------


def _take_captions(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    settings: ExportSettings,
    writers: dict[str, str],
) -> None:
    """Tables `taken` (key, kind, source, sample_index, caption) and `left_out` (key, reason)."""
    connection.execute(
        "CREATE TABLE accepted (key VARCHAR, kind VARCHAR, source VARCHAR, sample_index INTEGER, "
        "caption VARCHAR, rank INTEGER)"
    )
    by_share = fallback_order(settings.captions)
    for kind, writer in writers.items():
        connection.execute(
            f"INSERT INTO accepted SELECT *, $rank FROM ({accepted_sql(dataset, kind, writer)}) "
            "SEMI JOIN drawn USING (key)",
            {"rank": by_share.index(kind)},
        )
    # Whether each sample has each kind.
    connection.execute(
        "CREATE TABLE has AS SELECT key, kind, min(rank) AS rank FROM accepted GROUP BY key, kind"
    )
    lacks = " ".join(
        f"WHEN NOT coalesce(list_contains(kinds, '{kind}'), false) THEN 'no_{kind}_caption'"
        for kind in (k.replace("'", "''") for k in writers)
    )
    fallback = settings.missing_captions == "fallback"
    reason = "CASE WHEN kinds IS NULL THEN 'no_caption' END" if fallback else f"CASE {lacks} END"
    connection.execute(
        "CREATE TABLE fate AS SELECT drawn.key, drawn.choice, "
        "CASE WHEN list_contains(kinds, drawn.kind) THEN drawn.kind ELSE first_kind END AS kind, "
        f"CASE WHEN status IS DISTINCT FROM 'stored' THEN 'not_stored' ELSE {reason} END AS reason "
        "FROM drawn JOIN selected USING (key) LEFT JOIN "
        "(SELECT key, list(kind) AS kinds, arg_min(kind, rank) AS first_kind FROM has "
        "GROUP BY key) USING (key)"
    )
    connection.execute(
        "CREATE TABLE taken AS SELECT key, kind, source, sample_index, caption FROM accepted "
        "JOIN (SELECT * FROM fate WHERE reason IS NULL) USING (key, kind) "
        "QUALIFY row_number() OVER (PARTITION BY key ORDER BY sample_index) - 1 = "
        "CAST(floor(choice * count(*) OVER (PARTITION BY key)) AS BIGINT)"
    )
    connection.execute(
        "CREATE TABLE left_out AS SELECT key, reason FROM fate WHERE reason IS NOT NULL UNION ALL "
        "SELECT key, 'no_picture' FROM taken ANTI JOIN places USING (key)"
    )


def _write_left_out(connection: duckdb.DuckDBPyConnection, directory: Path) -> dict[str, int]:
    with atomic_path(directory / "left_out.parquet") as temporary:
        connection.execute(
            "COPY (SELECT key, reason FROM left_out ORDER BY key) "
            f"TO {sql_text(plain_path(temporary))} (FORMAT parquet)"
        )
    counts = connection.execute(
        "SELECT reason, count(*) FROM left_out GROUP BY reason ORDER BY 2 DESC, 1"
    ).fetchall()
    return dict(counts)


# ---- order and shards -------------------------------------------------------------------------


def _write_shards(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    settings: ExportSettings,
    directory: Path,
    scores: list[str],
) -> tuple[int, int]:
    """Write `shards/00000.parquet`, ...; returns samples and shards."""
    counted = connection.execute("SELECT count(*) FROM taken SEMI JOIN places USING (key)")
    samples = int(counted.fetchall()[0][0])
    shards = -(-samples // settings.samples_per_shard)
    own = ", ".join(f"samples.{name}" for name in _SAMPLE_COLUMNS)
    listed = "".join(f", scores.{sql_name(name)}" for name in scores)
    joined = (
        f"LEFT JOIN {dataset.scan('scores', union_by_name=True)} AS scores USING (key) "
        if scores
        else ""
    )
    if dataset.is_weighted(settings.selection):
        own += ", selected.weight"
        joined = f"JOIN selected USING (key) {joined}"
    order = "place, taken.key" if settings.order == "shuffle" else "taken.key"
    relation = connection.sql(
        f"SELECT taken.key, taken.caption, taken.kind, taken.source, taken.sample_index, {own}, "
        f"places.shard, places.extension, places.offset, places.size{listed} "
        "FROM taken JOIN drawn USING (key) JOIN places USING (key) "
        f"JOIN {dataset.scan('samples')} AS samples USING (key) {joined}"
        f"ORDER BY {order}"
    )
    number, held, held_rows = 0, list[pa.Table](), 0
    for batch in _stream(relation):
        rest = pa.Table.from_batches([batch])
        while number < shards:
            room = (number + 1) * samples // shards - number * samples // shards - held_rows
            if rest.num_rows < room:
                break
            whole = pa.concat_tables([*held, rest.slice(0, room)]).combine_chunks()
            with atomic_path(directory / "shards" / f"{number:05d}.parquet") as temporary:
                pq.write_table(whole, temporary, compression="zstd")
            number, rest, held, held_rows = number + 1, rest.slice(room), [], 0
        if rest.num_rows:
            held.append(rest)
            held_rows += rest.num_rows
    return samples, shards


def _stream(relation: duckdb.DuckDBPyRelation) -> Iterator[pa.RecordBatch]:
    # DuckDB 2 renamed the streaming reader.
    if hasattr(relation, "to_arrow_reader"):
        yield from relation.to_arrow_reader(_BATCH)
    else:
        yield from relation.fetch_arrow_reader(_BATCH)


def _score_columns(dataset: Dataset) -> list[str]:
    """Scores of one number, flag or word a sample."""
    if not dataset.has_table("scores"):
        return []
    with dataset.connect() as connection:
        described = connection.execute("DESCRIBE scores").fetchall()
    taken = {*_SAMPLE_COLUMNS, "caption", "kind", "source", "shard", "extension", "offset", "size"}
    return [
        name
        for name, kind, *_ in described
        if name not in _NOT_SCORES and name not in taken and "[" not in kind and "(" not in kind
    ]
