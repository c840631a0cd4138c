"""Captions that nearly repeat the caption of another picture, over one source's whole table.

Only signatures (see `signature`) are compared, never texts. Equal ones are one; the others meet
in buckets, one for each of 16 bands of four numbers (locality-sensitive hashing; Leskovec et al.,
"Mining of massive datasets", chapter 3): a pair with Jaccard 0.8 shares one with probability above
0.999, one with 0.3 with 0.12. In a bucket every signature is compared with the first 16 in the
order of their bytes, so the work is linear in the number of captions, however alike they are, and
the answer depends on the set of captions alone, not on the order in which they were written.

DuckDB holds the buckets and spills to the dataset's own disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.store.dataset import Dataset
from curate.store.sample_view import METHODS
from curate.store.scans import parquet_scan
from recaption.captioning.answers import read_answers
from recaption.captioning.drafts import OK, REJECTED
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.signature import HASHES, agreement, signatures
from recaption.captioning.spilling import spilling_database
from recaption.gates.registry import NEAR_DUPLICATE
from recaption.prompts.templates import BUILT_IN

BANDS = 16
COMPARED_IN_A_BUCKET = 16
_BAND_BYTES = 2 * HASHES // BANDS
_PAIRS_AT_ONCE = 65_536


def mark_near_duplicates(
    dataset: Dataset, source: str, settings: RecaptionSettings
) -> dict[str, int]:
    """Flag every accepted caption of `source` that nearly repeats one of another picture.

    Captions of one kind are compared. Pictures are one where their files are equal or duplicate
    search put them into one group, at the widest level that was run. Where the settings reject by
    near_duplicate, a marked caption's text goes, and comes back when it is marked no more: it is
    repaired from raw_text again and checked against its signature. Shards that change are written
    again, each atomically; a second call changes nothing.

    Returns:
        {"compared": captions, "near_duplicate": those marked, "lost": captions that are marked no
        more but whose text this version's repair does not give again: they stay rejected}.
    """
    counts = {"compared": 0, NEAR_DUPLICATE: 0, "lost": 0}
    paths = dataset.table_files("captions", source)
    if not paths:
        return counts
    with spilling_database(dataset) as database:
        counts["compared"] = _read_captions(database, dataset, paths, settings)
        _compare(database, settings.near_duplicate_threshold)
        # Written only after everything was read: DuckDB looks at the files until then.
        by_file = database.execute("SELECT filename, list(row) FROM marked GROUP BY filename")
        marked = {Path(filename).name: set(rows) for filename, rows in by_file.fetchall()}
        for path in paths:
            rows = marked.pop(path.name, set())
            counts[NEAR_DUPLICATE] += len(rows)
            counts["lost"] += _mark_shard(dataset, source, path.stem, rows, settings)
    return counts


def _read_captions(
    database: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    paths: Sequence[Path],
    settings: RecaptionSettings,
) -> int:
    """Tables `caption` (a row each) and `different` (a row a signature and kind)."""
    if dataset.has_table("duplicates"):
        groups = dataset.scan("duplicates")
        found = database.execute(f"SELECT DISTINCT method FROM {groups}").fetchall()
        present = {method for (method,) in found}
        widest = next((method for method in reversed(METHODS) if method in present), METHODS[0])
        database.execute(
            'CREATE TABLE grouped AS SELECT key, any_value("group") AS picture FROM '
            f"{groups} WHERE method = ? GROUP BY key",
            [widest],
        )
    else:
        database.execute("CREATE TABLE grouped (key VARCHAR, picture VARCHAR)")
    captions = parquet_scan(paths, filename=True, file_row_number=True)
    database.execute(
        # One file may be in a group under one key and in none under another.
        "CREATE TABLE caption AS SELECT filename, file_row_number AS row, kind, signature, "
        "coalesce(min(grouped.picture) OVER (PARTITION BY image_sha256), image_sha256) AS picture "
        f"FROM {captions} AS captions "
        "LEFT JOIN grouped ON grouped.key = captions.key "
        "WHERE signature IS NOT NULL AND words >= ?",
        [settings.near_duplicate_words],
    )
    database.execute(
        "CREATE TABLE different AS SELECT row_number() OVER () AS id, kind, signature, "
        "min(picture) AS first, max(picture) AS last FROM caption GROUP BY kind, signature"
    )
    counted = database.execute("SELECT count(*) FROM caption").fetchall()
    return int(counted[0][0])


def _compare(database: duckdb.DuckDBPyConnection, threshold: float) -> None:
    """Table `alike`: signature id, and the first and last picture with a similar caption."""
    database.execute("CREATE TABLE alike (id BIGINT, first VARCHAR, last VARCHAR)")
    writer = database.cursor()
    for band in range(BANDS):
        start = band * _BAND_BYTES
        database.execute(
            "CREATE OR REPLACE TABLE placed AS SELECT *, row_number() OVER "
            "(PARTITION BY kind, band ORDER BY signature) AS place FROM "
            f"(SELECT *, signature[{start + 1}:{start + _BAND_BYTES}] AS band FROM different)"
        )
        pairs = database.sql(
            "SELECT a.id AS a, b.id AS b, a.signature AS sa, b.signature AS sb, "
            "a.first AS fa, a.last AS la, b.first AS fb, b.last AS lb "
            "FROM placed a JOIN placed b ON a.kind = b.kind AND a.band = b.band "
            f"WHERE b.place <= {COMPARED_IN_A_BUCKET} AND a.place > b.place"
        ).to_arrow_reader(_PAIRS_AT_ONCE)
        for batch in pairs:
            similar = agreement(_numbers(batch["sa"]), _numbers(batch["sb"])) >= threshold
            found = batch.filter(pa.array(similar))
            if found.num_rows:
                for one, first, last in (("a", "fb", "lb"), ("b", "fa", "la")):
                    columns = [found[one], found[first], found[last]]
                    rows = pa.table(columns, names=["id", "first", "last"])
                    writer.register("found", rows)
                    writer.execute("INSERT INTO alike SELECT * FROM found")
                    writer.unregister("found")
    database.execute("DROP TABLE placed")
    database.execute(
        "CREATE TABLE marked AS SELECT filename, row FROM caption JOIN "
        # A signature that several pictures share is alike with itself.
        "(SELECT kind, signature, min(other.first) AS first, max(other.last) AS last "
        "FROM different JOIN (SELECT * FROM alike UNION ALL SELECT id, first, last FROM different) "
        "AS other ON other.id = different.id GROUP BY kind, signature) AS other "
        "ON other.kind = caption.kind AND other.signature = caption.signature "
        "WHERE other.first != caption.picture OR other.last != caption.picture"
    )


def _numbers(column: pa.Array) -> NDArray[np.uint16]:
    """(N,) binary of 128 bytes -> (N, 64) uint16."""
    return np.frombuffer(b"".join(column.to_pylist()), "<u2").reshape(-1, HASHES)


def _mark_shard(
    dataset: Dataset, source: str, shard: str, marked: set[int], settings: RecaptionSettings
) -> int:
    """Write the shard's marks where they change; returns the captions that could not come back."""
    names = ["kind", "text", "raw_text", "status", "reason", "flags", "finish_reason", "signature"]
    light = dataset.read_table("captions", shard, source, ["status", "reason", "flags"])
    rejects = NEAR_DUPLICATE in settings.reject
    now = zip(*(light.column(name).to_pylist() for name in light.column_names), strict=True)
    changed = [
        row
        for row, (status, reason, flags) in enumerate(now)
        if (row in marked) != (NEAR_DUPLICATE in (flags or []))
        or (row in marked and rejects and status == OK)
        or (reason == NEAR_DUPLICATE and not (row in marked and rejects))
    ]
    if not changed:
        return 0
    table = dataset.read_table("captions", shard, source)
    columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in names}
    lost = sum(not _mark_row(columns, row, row in marked, rejects, settings) for row in changed)
    if lost == len(changed):
        return lost
    for name in ("text", "status", "reason", "flags"):
        place = table.column_names.index(name)
        array = pa.array(columns[name], table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), array)
    dataset.write_table("captions", table, shard, source)
    return lost


def _mark_row(
    columns: dict[str, list[Any]],
    row: int,
    marked: bool,
    rejects: bool,
    settings: RecaptionSettings,
) -> bool:
    """Mark or unmark one row in place; False where its text cannot come back."""
    if columns["reason"][row] == NEAR_DUPLICATE and not (marked and rejects):
        kind = columns["kind"][row]
        own = BUILT_IN.get(kind)
        text = read_answers(
            kind,
            [columns["raw_text"][row]],
            [columns["finish_reason"][row]],
            settings.lengths_of(kind, own.lengths if own else None).min_words,
        ).stored
        if signatures(text) != [columns["signature"][row]]:
            return False
        columns["text"][row], columns["status"][row], columns["reason"][row] = text[0], OK, None
    flags = [flag for flag in columns["flags"][row] or [] if flag != NEAR_DUPLICATE]
    columns["flags"][row] = [*flags, NEAR_DUPLICATE] if marked else flags
    if marked and rejects:
        columns["text"][row], columns["status"][row] = None, REJECTED
        columns["reason"][row] = NEAR_DUPLICATE
    return True
