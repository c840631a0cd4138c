"""The bytes of a text file, unpacked and cut into lines; damage ends it and loses nothing before.

Memory is one line, at most 16 MiB: a longer one is taken for damage.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from gzip import BadGzipFile, GzipFile
from typing import IO

from curate.intake.locations import Store

LONGEST_LINE = 16 << 20
_CHUNK = 1 << 18
_GZIP = b"\x1f\x8b"


class Lines:
    """Iterates over (number from 1, line without its line feed). Look at `damage` afterwards."""

    def __init__(self, store: Store, path: str) -> None:
        """Nothing is opened yet."""
        self._store, self._path = store, path
        self.damage: str | None = None

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        chunks = Chunks(self._store, self._path)
        rest, number = b"", 0
        for chunk in chunks:
            *lines, rest = (rest + chunk if rest else chunk).split(b"\n")
            for line in lines:
                number += 1
                yield number, line
            if len(rest) > LONGEST_LINE:
                self.damage = f"line {number + 1} is longer than {LONGEST_LINE:,} bytes"
                return
        if chunks.damage is not None:
            self.damage = f"after line {number}: {chunks.damage}"
        elif rest:
            yield number + 1, rest


class Chunks:
    """Iterates over a file's unpacked bytes. Look at `damage` afterwards."""

    def __init__(self, store: Store, path: str) -> None:
        """Nothing is opened yet."""
        self._store, self._path = store, path
        self.damage: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self._store.open(self._path) as stream:
                packed = stream.read(2) == _GZIP
                stream.seek(0)
                yield from _unpacked(stream) if packed else _plain(stream)
        except (OSError, EOFError, zlib.error, BadGzipFile) as error:
            self.damage = f"{type(error).__name__}: {error}"


def is_gzip(store: Store, path: str) -> bool:
    """Whether the file starts like gzip, whatever it is called. OSError is the caller's."""
    with store.open(path) as stream:
        return stream.read(2) == _GZIP


def _plain(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _unpacked(stream: IO[bytes]) -> Iterator[bytes]:
    with GzipFile(fileobj=stream) as unpacked:
        # read1 hands out what is unpacked so far; read would lose it to the error that follows.
        while chunk := unpacked.read1(_CHUNK):
            yield chunk
