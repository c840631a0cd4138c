"""Thumbnails of a shard, and where its pictures lie in the tar: one SQLite file a shard.

    cache/thumbnails/00000.sqlite     place: key -> first byte and size in the tar
                                      thumbnail: key, edge -> WebP
                                      tar: size and time of the tar that all of it is of

Places are read from the tar's headers when the first picture of a shard is asked for. SQLite keeps
what was written whole, also where two servers write or one is killed; a file of another tar, or one
that is damaged, is made again.
"""

from __future__ import annotations

import re
import sqlite3
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path

from curate.base.errors import DatasetError
from curate.store.dataset import Dataset
from curate.store.shards import IMAGE_EXTENSIONS, member_places

_BLOCK = 512
_MOST_OPEN = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tar (size INTEGER, changed INTEGER);
CREATE TABLE IF NOT EXISTS place (key TEXT PRIMARY KEY, start INTEGER, size INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS thumbnail (key TEXT, edge INTEGER, webp BLOB, PRIMARY KEY (key, edge));
"""


class Packs:
    """The packs of a dataset; the 32 used last are open."""

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        """Nothing is opened yet."""
        self._dataset, self._folder = dataset, cache / "thumbnails"
        self._open: OrderedDict[str, Pack] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, shard: str) -> Pack:
        """The pack of a shard; reads the tar's headers where it is new.

        Raises:
            DatasetError: the tar is damaged.
        """
        if not re.fullmatch(r"\w[\w.-]*", shard, re.ASCII):
            raise DatasetError(f"{shard!r} names no shard.")
        with self._lock:
            pack = self._open.pop(shard, None)
            if pack is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                pack = Pack(self._dataset.shard_path(shard), self._folder / f"{shard}.sqlite")
            self._open[shard] = pack
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)  # closed when the last who uses it is done
        pack.refresh()
        return pack


class Pack:
    """One shard's thumbnails and places. Safe to use from many threads."""

    def __init__(self, tar: Path, path: Path) -> None:
        """Open or make the file."""
        self._tar, self._path = tar, path
        self._lock = threading.Lock()
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._database = self._opened()

    def __del__(self) -> None:
        if hasattr(self, "_database"):
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

    def refresh(self) -> None:
        """Read the tar's headers, where the file is not of the tar as it is now.

        Raises:
            DatasetError: the tar is damaged. What was kept of one that went away stays.
        """
        try:
            found = self._tar.stat()
        except FileNotFoundError:
            return
        mark = (found.st_size, found.st_mtime_ns)
        try:
            with self._lock:
                if self._database.execute("SELECT size, changed FROM tar").fetchone() == mark:
                    return
                places = [
                    (name.rpartition(".")[0], start, size)
                    for name, start, size in member_places(self._tar)
                    if name.rpartition(".")[2] in IMAGE_EXTENSIONS
                ]
                self._database.execute("BEGIN IMMEDIATE")
                for table in ("tar", "place", "thumbnail"):
                    self._database.execute(f"DELETE FROM {table}")
                self._database.executemany("INSERT OR IGNORE INTO place VALUES (?, ?, ?)", places)
                self._database.execute("INSERT INTO tar VALUES (?, ?)", mark)
                self._database.execute("COMMIT")
        except (OSError, ValueError, tarfile.TarError) as error:
            raise DatasetError(f"{self._tar} is unreadable ({error}).") from error

    def picture(self, key: str) -> bytes:
        """A sample's picture as it is stored.

        Raises:
            DatasetError: the tar is missing, or does not hold it.
        """
        with self._lock:
            place = self._database.execute(
                "SELECT start, size FROM place WHERE key = ?", (key,)
            ).fetchone()
        try:
            with open(self._tar, "rb") as tar:
                if place is None:
                    raise DatasetError(f"{self._tar} holds no picture of {key}.")
                start, size = place
                tar.seek(start - _BLOCK)
                content = tar.read(_BLOCK + size)
        except OSError as error:
            raise DatasetError(f"{self._tar} cannot be read ({error.strerror}).") from error
        # The tar may have been written anew since its headers were read.
        if len(content) < _BLOCK + size or not content.startswith(f"{key}.".encode()):
            raise DatasetError(f"{self._tar} is being written; look again in a moment.")
        return content[_BLOCK:]

    def thumbnail(self, key: str, edge: int) -> bytes | None:
        """The WebP that was kept; None where there is none yet."""
        with self._lock:
            found = self._database.execute(
                "SELECT webp FROM thumbnail WHERE key = ? AND edge = ?", (key, edge)
            ).fetchone()
        return found[0] if found else None

    def keep(self, key: str, edge: int, webp: bytes) -> None:
        """Keep a thumbnail."""
        with self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO thumbnail VALUES (?, ?, ?)", (key, edge, webp)
            )
