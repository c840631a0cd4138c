"""The bytes of a text file, unpacked and cut into lines; damage ends it and loses nothing before.

Memory is one line, at most 16 MiB: a longer one is skipped and counted. Lines end with a line feed,
or, in a file that starts without one, with a carriage return. All is handed on as UTF-8.
"""

from __future__ import annotations

import codecs
import itertools
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile, GzipFile
from typing import IO

from curate.intake.locations import Store

LONGEST_LINE = 16 << 20
_CHUNK = 1 << 18
_GZIP = b"\x1f\x8b"
# UTF-32's mark starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Lines:
    """Iterates over (number from 1, line without its end). Look at `damage` afterwards.

    A line of more than LONGEST_LINE bytes is None.
    """

    def __init__(self, store: Store, path: str, encoding: str | None = None) -> None:
        """Nothing is opened yet."""
        self._chunks = Chunks(store, path, encoding)
        self.damage: str | None = None

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        rest, number, end, long = b"", 0, b"", False
        for chunk in self._chunks:
            end = end or (b"\r" if b"\r" in chunk and b"\n" not in chunk else b"\n")
            *lines, rest = (rest + chunk if rest else chunk).split(end)
            for line in lines:
                number += 1
                yield number, None if long else line
                long = False
            if len(rest) > LONGEST_LINE:
                long, rest = True, b""
        if self._chunks.damage is not None:
            self.damage = f"after line {number}: {self._chunks.damage}"
        elif rest or long:
            yield number + 1, None if long else rest


class Chunks:
    """Iterates over a file's unpacked bytes as UTF-8. Look at `damage` afterwards.

    Args:
        encoding: None takes the bytes as they are, unless a mark says that they are UTF-16 or -32.
    """

    def __init__(self, store: Store, path: str, encoding: str | None = None) -> None:
        """Nothing is opened yet."""
        self._store, self._path, self._encoding = store, path, encoding
        self.damage: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self._store.open(self._path) as stream:
                packed = stream.read(2) == _GZIP
                stream.seek(0)
                chunks = _unpacked(stream) if packed else _plain(stream)
                yield from _as_utf8(chunks, self._encoding)
        except (OSError, EOFError, zlib.error, BadGzipFile, UnicodeError) as error:
            self.damage = f"{type(error).__name__}: {error}"


def is_gzip(store: Store, path: str) -> bool:
    """Whether the file starts like gzip, whatever it is called. OSError is the caller's."""
    with store.open(path) as stream:
        return stream.read(2) == _GZIP


def _as_utf8(chunks: Iterator[bytes], encoding: str | None) -> Iterator[bytes]:
    """The same text in UTF-8; what is no letter of `encoding` becomes bytes that are no UTF-8."""
    first = next(chunks, b"")
    if encoding is None:
        encoding = next((name for mark, name in _MARKS if first.startswith(mark)), "utf-8")
    if codecs.lookup(encoding).name == "utf-8":
        yield first
        yield from chunks
        return
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    errors = "surrogatepass" if wide else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    for chunk in itertools.chain([first], chunks):
        yield decoder.decode(chunk).encode("utf-8", errors)
    yield decoder.decode(b"", True).encode("utf-8", errors)


def _plain(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _unpacked(stream: IO[bytes]) -> Iterator[bytes]:
    with GzipFile(fileobj=stream) as unpacked:
        # read1 hands out what is unpacked so far; read would lose it to the error that follows.
        while chunk := unpacked.read1(_CHUNK):
            yield chunk
