"""Whose texts they are: by key, then by file name, then by URL, in SQL that spills to disk.

A file's name is tried as it stands (`set/a.jpg`), without its extension (`set/a`), and at last
without its folders, where only one picture of the dataset has that name. A URL that several samples
share gives all of them the text.
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
_STEM = r"'\.[^./]*$', ''"
_BASE = r"'^.*/', ''"
# The sample's side and the text's, in the order in which they are tried.
_STEPS = (
    ("sample.key", "given.key"),
    ("sample.file", "given.file"),
    (f"regexp_replace(sample.file, {_STEM})", f"regexp_replace(given.file, {_STEM})"),
    (f"regexp_replace(sample.file, {_STEM})", "given.file"),  # a.b.txt is the text of a.b.jpg
)
_BARE = (
    f"regexp_replace(sample.name, {_BASE})",
    f"regexp_replace(regexp_replace(given.file, {_BASE}), {_STEM})",
    f"regexp_replace(given.file, {_BASE})",
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
        names = _stage(database, dataset, given)
        _samples(database, dataset)
        database.execute("CREATE TABLE pair (n BIGINT, key VARCHAR)")
        database.execute("CREATE TABLE vague (n BIGINT, pictures BIGINT)")
        for sample, text in _STEPS:
            if names & {text.partition("given.")[2].partition(",")[0]}:
                database.execute(
                    f"INSERT INTO pair SELECT given.n, sample.key FROM {_LEFT} "
                    f"JOIN sample ON {sample} = {text}"
                )
        if "file" in names:
            _by_bare_names(database)
        if "url" in names:
            database.execute(
                f"INSERT INTO pair SELECT given.n, sample.key FROM {_LEFT} "
                "JOIN sample ON sample.url = given.url"
            )
        _settle(database)
        yield Matches(database)


_LEFT = (
    "(SELECT * FROM given WHERE problem IS NULL AND n NOT IN (SELECT n FROM pair) "
    "AND n NOT IN (SELECT n FROM vague)) AS given"
)


def _stage(
    database: duckdb.DuckDBPyConnection, dataset: Dataset, given: Iterable[Given]
) -> set[str]:
    """Table `given`; by which names pictures are named."""
    (folder,) = database.execute("SELECT current_setting('temp_directory')").fetchone() or ("",)
    path, number, names = Path(folder) / "given.parquet", 0, set[str]()
    with pq.ParquetWriter(path, _GIVEN) as writer:
        rest = iter(given)
        while some := list(islice(rest, _BATCH)):
            rows = [asdict(one) | {"n": number + k} for k, one in enumerate(some)]
            number += len(rows)
            names |= {name for row in rows for name in ("key", "file", "url") if row[name]}
            writer.write_table(pa.Table.from_pylist(rows, schema=_GIVEN))
    database.execute(f"CREATE TABLE given AS SELECT * FROM {parquet_scan(path)}")
    return names


def _samples(database: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    """View `sample`: key, shard, url, status, reason, and the names of pictures that were here."""
    inputs = [path for shard in dataset.shards() if (path := dataset.input_path(shard)).exists()]
    known = set(pq.read_schema(inputs[0]).names) if inputs else set()
    samples = f"SELECT key, shard, url, status, reason FROM {dataset.scan('samples')}"
    if {"key", SOURCE_FILE, SOURCE_KEY} <= known:
        plain = r"nfc_normalize(replace({}, '\', '/'))"
        file, name = (f'input."{column}"' for column in (SOURCE_FILE, SOURCE_KEY))
        samples = (
            f"SELECT s.*, {plain.format(file)} AS file, {plain.format(name)} AS name "
            f"FROM ({samples}) AS s LEFT JOIN {parquet_scan(inputs, union_by_name=True)} AS input "
            "USING (key)"
        )
    else:
        samples = f"SELECT *, NULL::VARCHAR AS file, NULL::VARCHAR AS name FROM ({samples})"
    database.execute(f"CREATE VIEW sample AS {samples}")


def _by_bare_names(database: duckdb.DuckDBPyConnection) -> None:
    """Names without folders, where they are one picture's."""
    sample, *texts = _BARE
    for text in texts:
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
