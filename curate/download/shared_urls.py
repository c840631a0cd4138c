"""One URL in several shards: what one of them has stored is copied from there, not asked for again.

Workers fetch shards side by side, so who rests on whom is settled before: `sharing_urls` notes for
every row whose URL stands in an earlier shard too the first such shard. Whoever comes to the row
looks there. A URL that failed there, or whose shard is not done yet, is asked for.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, plain_path
from curate.intake.read import MEMORY_LIMIT
from curate.pictures.file_hashes import HASHES
from curate.pictures.resize import StoredImage
from curate.store.contract import STORED
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan, sql_text
from curate.store.shards import member_places
from curate.store.write_samples import is_stored

# Of other shards that one shard looks into, those with most of its rows first. Each costs the
# headers of its tar: rows strewn over more are asked for.
_MOST_TARS = 64
_COLUMNS = ("original_width", "original_height", "original_format", "original_bytes")
_KNOWN = ("format", "width", "height", *_COLUMNS, "sha256", "jpeg_quality")
_SHARD = "caplab_shard"  # a list may have a column "filename"


@contextmanager
def sharing_urls(dataset: Dataset, shards: Sequence[str]) -> Iterator[None]:
    """Have the shards that are still to be fetched find what the others of `shards` store.

    Cost: two readings of all URLs, and a join on disk above 2 GB; nothing where all are fetched.
    """
    todo = [shard for shard in shards if not is_stored(dataset, shard)]
    if todo and len(shards) > 1:
        _note(dataset, shards, todo)
    try:
        yield
    finally:
        _path(dataset).unlink(missing_ok=True)  # what a killed run left as well


def stored_elsewhere(
    dataset: Dataset, shard: str, rows: Mapping[str, tuple[str, Mapping[str, str | None]]]
) -> Iterator[tuple[list[str], StoredImage]]:
    """Keys of rows, and the picture that another shard stored of their URL, with what is known.

    Args:
        rows: key -> URL, and the hashes that the list expects of its file. A hash that cannot be
            compared with what is known (of another kind, or another file's) keeps a row out.
    """
    owners: dict[str, dict[str, list[str]]] = {}
    for key, first in _noted(dataset, shard):
        if key in rows:
            owners.setdefault(first, {}).setdefault(_address(rows[key][0]), []).append(key)
    most = sorted(owners, key=lambda first: (-len(owners[first]), first))[:_MOST_TARS]
    for first in sorted(most):
        if not is_stored(dataset, first):
            continue
        wanted: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
        for known in _stored(dataset, first, owners[first]):
            keys = [
                key
                for key in owners[first].pop(_address(known["url"]), ())
                if _agrees(rows[key][1], known["sha256"])
            ]
            if keys:
                wanted[f"{known['key']}.{known['format']}"] = keys, known
        for name, content in _members(dataset.shard_path(first), wanted):
            keys, known = wanted[name]
            about: dict[str, Any] = {column: known.get(column) for column in _KNOWN}
            yield keys, StoredImage(content, **about)


def _note(dataset: Dataset, shards: Sequence[str], todo: Sequence[str]) -> None:
    import duckdb

    scan = parquet_scan([dataset.input_path(shard) for shard in shards], filename=_SHARD)
    listed = (
        f"(SELECT key, parse_filename({_SHARD}, true) AS shard, "
        f"hash(split_part(trim(url), '#', 1)) AS address FROM {scan} WHERE url IS NOT NULL)"
    )
    wanted = ", ".join(f"({sql_text(shard)})" for shard in todo)
    path = _path(dataset)
    path.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="spilled-", dir=path.parent) as folder:
        config: dict[str, Any] = {
            "threads": 1,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(plain_path(folder)),
        }
        with duckdb.connect(config=config) as connection, atomic_path(path) as temporary:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(
                f"CREATE TEMP TABLE spread AS SELECT address, min(shard) AS first FROM {listed} "
                f"GROUP BY address HAVING min(shard) <> max(shard)"
            )
            connection.execute(
                f"COPY (SELECT key, shard, first FROM {listed} JOIN spread USING (address) "
                f"WHERE shard <> first AND shard IN (SELECT * FROM (VALUES {wanted})) "
                f"ORDER BY shard) TO {sql_text(plain_path(temporary))} (FORMAT parquet)"
            )


def _noted(dataset: Dataset, shard: str) -> Iterator[tuple[str, str]]:
    """Key and first shard of the rows of one shard that another one has the URL of."""
    if not _path(dataset).exists():
        return
    rows = pq.read_table(_path(dataset), filters=[("shard", "=", shard)], partitioning=None)
    yield from zip(rows["key"].to_pylist(), rows["first"].to_pylist(), strict=True)


def _stored(
    dataset: Dataset, shard: str, addresses: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The stored samples of a shard with one of these addresses; the first of each."""
    try:
        samples = dataset.read_table("samples", shard, columns=["key", "url", "status", *_KNOWN])
    except DatasetError:  # damaged; `caplab check` names it
        return
    for number, (status, url) in enumerate(
        zip(samples["status"].to_pylist(), samples["url"].to_pylist(), strict=True)
    ):
        if status == STORED and url is not None and _address(url) in addresses:
            known: Mapping[str, Any] = samples.slice(number, 1).to_pylist()[0]
            if known.get("jpeg_quality") is not None or known["original_format"] != "jpeg":
                yield known


def _members(tar: Path, names: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    if not names:
        return
    try:
        places = [place for place in member_places(tar) if place[0] in names]
        with open(tar, "rb", 0) as file:
            for name, start, size in places:
                if len(content := os.pread(file.fileno(), size, start)) == size:
                    yield name, content
    except (OSError, tarfile.TarError, ValueError):
        return  # `caplab check` names it; what is asked for is whole


def _agrees(expected: Mapping[str, str | None], sha256: str) -> bool:
    given = {name: value.strip().lower() for name in HASHES if (value := expected.get(name) or "")}
    strongest = next((name for name in given if given[name]), None)
    return strongest is None or (strongest == "sha256" and given[strongest] == sha256)


def _address(url: str) -> str:
    return url.strip().partition("#")[0]


def _path(dataset: Dataset) -> Path:
    return dataset.directory / ".scratch" / "shared_urls.parquet"
