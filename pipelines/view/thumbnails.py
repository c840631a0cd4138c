"""Thumbnails that were made, and where pictures lie in their tars: one SQLite file.

    cache/pictures.sqlite     tar: shard -> size and time of the tar that the rest is of
                              place: shard, key -> first byte and size in the tar
                              thumbnail: shard, key, edge -> WebP

A shard's places are read from the headers of its tar when its first picture is asked for, so the
file grows with what was looked at. SQLite keeps what was written whole, also where two servers
write or one is killed. What is of another tar is forgotten; a damaged file is made again.
"""

from __future__ import annotations

import re
import sqlite3
import tarfile
import threading
from pathlib import Path

from curate.base.errors import DatasetError
from curate.store.dataset import Dataset
from curate.store.shards import IMAGE_EXTENSIONS, member_places

_BLOCK = 512
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tar (shard TEXT PRIMARY KEY, size INTEGER, changed INTEGER);
CREATE TABLE IF NOT EXISTS place (shard TEXT, key TEXT, start INTEGER, size INTEGER,
  PRIMARY KEY (shard, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS thumbnail (shard TEXT, key TEXT, edge INTEGER, webp BLOB,
  PRIMARY KEY (shard, key, edge));
"""


class Thumbnails:
    """The pictures of a dataset's shards, and the thumbnails kept of them. For many threads."""

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        """Open or make the file."""
        self._dataset, self._path = dataset, cache / "pictures.sqlite"
        self._lock, self._reading = threading.Lock(), threading.Lock()
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._database = self._opened()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            # Without a wait for the disk at each thumbnail; what a power cut takes is made again.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _found(self, sql: str, values: tuple[str | int, ...]) -> tuple | None:  # type: ignore[type-arg]
        with self._lock:
            found: tuple | None = self._database.execute(sql, values).fetchone()  # type: ignore[type-arg]
        return found

    def picture(self, shard: str, key: str) -> bytes:
        """A sample's picture as it is stored.

        Raises:
            DatasetError: the tar is missing or damaged, or does not hold it.
        """
        tar = self._tar(shard)
        try:
            self._read_headers(shard)
            place = self._found(
                "SELECT start, size FROM place WHERE shard = ? AND key = ?", (shard, key)
            )
            if place is None:
                raise DatasetError(f"{tar} holds no picture of {key}.")
            start, size = place
            with open(tar, "rb") as opened:
                opened.seek(start - _BLOCK)
                content = opened.read(_BLOCK + size)
        except (OSError, ValueError, tarfile.TarError) as error:
            words = getattr(error, "strerror", None) or error
            raise DatasetError(f"{tar} cannot be read ({words}).") from error
        # The tar may have been written anew since its headers were read.
        if len(content) < _BLOCK + size or not content.startswith(f"{key}.".encode()):
            raise DatasetError(f"{tar} is being written; look again in a moment.")
        return content[_BLOCK:]

    def get(self, shard: str, key: str, edge: int) -> bytes | None:
        """The WebP that was kept of the tar as it is; None where there is none yet.

        What was kept of a tar that went away stays.
        """
        tar = self._tar(shard)
        found = self._found(
            "SELECT webp, size, changed FROM thumbnail JOIN tar USING (shard) "
            "WHERE shard = ? AND key = ? AND edge = ?",
            (shard, key, edge),
        )
        if found is None or (tar.exists() and found[1:] != _mark(tar)):
            return None
        return bytes(found[0])

    def keep(self, shard: str, key: str, edge: int, webp: bytes) -> None:
        """Keep a thumbnail."""
        with self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO thumbnail VALUES (?, ?, ?, ?)", (shard, key, edge, webp)
            )

    def _tar(self, shard: str) -> Path:
        # The name is the dataset's, which may be a stranger's.
        if not re.fullmatch(r"\w[\w.-]*", shard, re.ASCII):
            raise DatasetError(f"{shard!r} names no shard.")
        return self._dataset.shard_path(shard)

    def _read_headers(self, shard: str) -> None:
        """Have the places of the tar as it is; its headers are read once."""
        tar, known = self._tar(shard), "SELECT size, changed FROM tar WHERE shard = ?"
        if self._found(known, (shard,)) == _mark(tar):
            return
        with self._reading:  # nobody reads what another is about to have read
            mark = _mark(tar)
            if self._found(known, (shard,)) == mark:
                return
            members = (
                (name.rpartition("."), start, size) for name, start, size in member_places(tar)
            )
            places = [
                (shard, key, start, size)
                for (key, _, extension), start, size in members
                if extension in IMAGE_EXTENSIONS
            ]
            with self._lock, self._database:  # which takes all of it back where a part fails
                self._database.execute("BEGIN IMMEDIATE")
                for table in ("tar", "place", "thumbnail"):
                    self._database.execute(f"DELETE FROM {table} WHERE shard = ?", (shard,))
                self._database.executemany(
                    "INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?)", places
                )
                self._database.execute("INSERT INTO tar VALUES (?, ?, ?)", (shard, *mark))


def _mark(tar: Path) -> tuple[int, int]:
    found = tar.stat()
    return found.st_size, found.st_mtime_ns
