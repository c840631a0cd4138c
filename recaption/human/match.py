"""Whose texts they are: by key, file, URL, then by bare name, in SQL that spills to disk.

A file is tried as it stands (`set/a.jpg`), as a picture without its extension (`set/a`), and with
another extension than the picture's (`set/a.png`). What stands behind any other dot is part of the
name: `a.2` is never taken for `a`. A URL that several samples share gives all of them the text. At
last come names without folders, and keys that pictures had in their tar or Parquet, where only one
picture of the dataset has that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.intake.tars import IMAGE_EXTENSIONS
from curate.store.contract import STORED
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan
from curate.store.write_samples import SOURCE_FILE, SOURCE_KEY
from recaption.captioning.spilling import spilling_database
from recaption.human.read import Given

NO_PICTURE, AMBIGUOUS, NOT_STORED = "no_such_picture", "several_pictures", "picture_not_stored"

_GIVEN = pa.schema(
    [
        ("n", pa.int64()),
        ("place", pa.string()),
        ("texts", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("key", "file", "url", "problem", "detail")),
    ]
)
_BATCH = 10_000
_STEM = r"regexp_replace({}, '\.[^./]*$', '')"
_BASE = r"regexp_replace({}, '^.*/', '')"
_PICTURE = rf"regexp_matches({{}}, '\.({'|'.join(sorted(IMAGE_EXTENSIONS))})$', 'i')"
# The sample's side and the text's, in the order in which they are tried.
_STEPS = (
    ("sample.key", "given.key"),
    ("sample.file", "given.file"),
    (_STEM.format("sample.file"), "given.file"),
    (_STEM.format("sample.file"), "given.stem"),
    ("sample.url", "given.url"),
)
_BARE = (
    _BASE.format("given.file"),
    _BASE.format("given.stem"),
    "CASE WHEN given.file IS NULL AND given.url IS NULL THEN given.key END",
)


@dataclass(frozen=True)
class Match:
    """The texts of one stored picture."""

    key: str
    texts: Sequence[str]
    place: str  # of the first


class Matches:
    """Texts that were matched, and those that were left out."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database

    def shards(self) -> list[str]:
        """Shards with pictures that have a text, in order."""
        found = self._database.execute("SELECT DISTINCT shard FROM told ORDER BY 1").fetchall()
        return [shard for (shard,) in found]

    def of(self, shard: str) -> list[Match]:
        """A shard's, by key; texts in the order in which they were given."""
        found = self._database.execute(
            "SELECT key, flatten(list(texts ORDER BY n)), arg_min(place, n) FROM told "
            "WHERE shard = ? GROUP BY key ORDER BY key",
            [shard],
        ).fetchall()
        return [Match(key, list(dict.fromkeys(texts)), place) for key, texts, place in found]

    def counts(self) -> dict[str, int]:
        """given, pictures, captions, and the dataset's stored pictures."""
        what = {
            "given": "count(*) FROM given",
            "pictures": "count(DISTINCT key) FROM told",
            "captions": "count(*) FROM (SELECT DISTINCT key, unnest(texts) FROM told)",
            "stored": f"count(*) FROM sample WHERE status = '{STORED}'",
        }
        sql = ", ".join(f"(SELECT {counted})" for counted in what.values())
        found = self._database.execute(f"SELECT {sql}").fetchone() or ()
        return dict(zip(what, found, strict=True))

    def left_out(self) -> dict[str, int]:
        """Reason -> texts without a picture, or without words."""
        rows = self._database.execute(
            "SELECT reason, count(*) FROM left_out GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        return {str(reason): int(count) for reason, count in rows}

    def each_left_out(self) -> Iterator[dict[str, Any]]:
        """place, reason and detail of each, in the order in which they were given."""
        rows = self._database.cursor().execute(
            "SELECT place, reason, detail FROM left_out ORDER BY n"
        )
        while some := rows.fetchmany(_BATCH):
            yield from (dict(zip(("place", "reason", "detail"), row, strict=True)) for row in some)


@contextmanager
def matched(dataset: Dataset, given: Iterable[Given]) -> Iterator[Matches]:
    """Read all that is given and find whose it is.

    Cost: the list once; of the dataset a join of key, shard, URL and file name a step that is
    needed. Memory is DuckDB's, at most 2 GB.
    """
    with spilling_database(dataset) as database:
        _stage(database, given)
        _samples(database, dataset)
        database.execute("CREATE TABLE pair (n BIGINT, key VARCHAR)")
        database.execute("CREATE TABLE vague (n BIGINT, pictures BIGINT)")
        for sample, text in _STEPS:
            database.execute(
                f"INSERT INTO pair SELECT given.n, sample.key FROM {_LEFT} "
                f"JOIN sample ON {sample} = {text}"
            )
        _by_bare_names(database)
        _settle(database)
        yield Matches(database)


_LEFT = (
    "(SELECT * FROM given WHERE problem IS NULL AND n NOT IN (SELECT n FROM pair) "
    "AND n NOT IN (SELECT n FROM vague)) AS given"
)


def _stage(database: duckdb.DuckDBPyConnection, given: Iterable[Given]) -> None:
    """Table `given`."""
    (folder,) = database.execute("SELECT current_setting('temp_directory')").fetchone() or ("",)
    path, number = Path(folder) / "given.parquet", 0
    with pq.ParquetWriter(path, _GIVEN) as writer:
        rest = iter(given)
        while some := list(islice(rest, _BATCH)):
            rows = [asdict(one) | {"n": number + k} for k, one in enumerate(some)]
            number += len(rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=_GIVEN))
    stem = _STEM.format("file")
    database.execute(
        f"CREATE TABLE given AS SELECT *, CASE WHEN {_PICTURE.format('file')} THEN {stem} END AS "
        f"stem FROM {parquet_scan(path)}"
    )


def _samples(database: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    """View `sample`: key, shard, url, status, reason, and the names of pictures that were here.

    `file` is a picture's own (a tar's is none); `name` stands in no folder.
    """
    inputs = [path for shard in dataset.shards() if (path := dataset.input_path(shard)).exists()]
    samples = f"SELECT key, shard, url, status, reason FROM {dataset.scan('samples')}"
    rows = parquet_scan(inputs, union_by_name=True) if inputs else "(SELECT NULL AS key)"
    # Of all lists: one that joined may be a folder where the first had URLs.
    known = database.sql(f"SELECT * FROM {rows} LIMIT 0").columns
    if {"key", SOURCE_FILE, SOURCE_KEY} <= {*known}:
        file, name = (
            f"nfc_normalize(replace({column}, '\\', '/'))" for column in (SOURCE_FILE, SOURCE_KEY)
        )
        is_file, is_named = (_PICTURE.format(f"input.{column}") for column in ("file", "name"))
        samples = (
            f"SELECT s.*, CASE WHEN {is_file} THEN input.file END AS file, "
            f"CASE WHEN {is_named} AND NOT {is_file} THEN {_STEM.format('input.name')} "
            f"ELSE input.name END AS name FROM ({samples}) AS s LEFT JOIN "
            f"(SELECT key, {file} AS file, {name} AS name FROM {rows}) AS input USING (key)"
        )
    else:
        samples = f"SELECT *, NULL::VARCHAR AS file, NULL::VARCHAR AS name FROM ({samples})"
    database.execute(f"CREATE VIEW sample AS {samples}")


def _by_bare_names(database: duckdb.DuckDBPyConnection) -> None:
    """Names without folders, where they are one picture's."""
    sample = _BASE.format("sample.name")
    for text in _BARE:
        database.execute(
            "CREATE OR REPLACE TABLE bare AS SELECT given.n, min(sample.key) AS key, "
            f"count(*) AS pictures FROM {_LEFT} JOIN sample ON {sample} = {text} GROUP BY given.n"
        )
        database.execute("INSERT INTO pair SELECT n, key FROM bare WHERE pictures = 1")
        database.execute("INSERT INTO vague SELECT n, pictures FROM bare WHERE pictures > 1")


def _settle(database: duckdb.DuckDBPyConnection) -> None:
    """Tables `told` and `left_out`: every given text is in one of them."""
    database.execute(
        "CREATE TABLE told AS SELECT sample.shard, sample.key, given.n, given.place, given.texts "
        "FROM pair JOIN given USING (n) JOIN sample ON sample.key = pair.key "
        f"WHERE sample.status = '{STORED}' ORDER BY sample.shard, sample.key"
    )
    database.execute(
        "CREATE TABLE left_out AS "
        "SELECT n, place, problem AS reason, detail FROM given WHERE problem IS NOT NULL "
        f"UNION ALL SELECT n, place, '{AMBIGUOUS}', pictures || ' pictures have this name' "
        "FROM given JOIN vague USING (n) "
        f"UNION ALL SELECT n, place, '{NO_PICTURE}', concat_ws(', ', key, file, url) FROM given "
        "WHERE problem IS NULL AND n NOT IN (SELECT n FROM pair) "
        "AND n NOT IN (SELECT n FROM vague) "
        f"UNION ALL SELECT n, any_value(place), '{NOT_STORED}', any_value(sample.reason) "
        "FROM pair JOIN given USING (n) JOIN sample ON sample.key = pair.key "
        "WHERE n NOT IN (SELECT n FROM told) GROUP BY n"
    )
