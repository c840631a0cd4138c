"""A list in text as a file: its bytes cut into lines, and its encoding, separator and shape.

Bytes are unpacked; damage ends a file and loses nothing before. Memory is one line, at most 16 MiB:
a longer one is skipped and counted. Lines end with a line feed, or, in a file that starts without
one, with a carriage return. All is handed on as UTF-8.

UTF-8 is the rule. A byte order mark tells UTF-16 and UTF-32. Bytes that are neither have no sure
reading: a look at the start of the file says what was seen and which option reads it.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from gzip import BadGzipFile, GzipFile
from typing import IO, Any

from curate.base.errors import ConfigError
from curate.intake.columns import FILE_COLUMNS, KEY_COLUMNS, URL_COLUMNS, find_column
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
            system = isinstance(error, OSError) and error.strerror
            told = f"it cannot be read ({system})" if system else None
            self.damage = told or f"{type(error).__name__}: {error}"


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


# ---- what it is written in ----------------------------------------------------------------------

_LOOKED_AT = 1 << 20  # bytes
_SEPARATORS = ",;\t|"
_SAID = re.compile(r'"?sep=(.)"?')  # Excel's own line above the header
_BINARY = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
    b"SQLite": "a database",
}
_CONTROLS = bytes(code for code in range(1, 32) if code not in b"\t\n\r\x0b\x0c\x1a\x1b")
# Share of bytes above ASCII, and of those that stand side by side: in the west they are single
# letters among others. More is the writing of another part of the world.
_WESTERN, _SIDE_BY_SIDE = 0.2, 0.5
_HIGH = re.compile(rb"[\x80-\xff]+")


def check_encoding(name: str) -> None:
    """Raise ConfigError where Python knows no encoding of texts by this name."""
    try:
        known = codecs.lookup(name)
        known.incrementaldecoder().decode(b"")
    except (LookupError, TypeError, AttributeError):
        known = None
    if known is None or not getattr(known, "_is_text_encoding", True):
        raise ConfigError(
            f"There is no text encoding {name!r}; usual ones are utf-8, utf-16, cp1252, latin-1, "
            f"shift_jis, gb18030, big5, euc-kr and koi8-r."
        )


def refuse_other_encodings(store: Store, path: str) -> None:
    """Look at the start of a file that should be UTF-8.

    Raises:
        ConfigError: it is no text, or looks like UTF-16 without a mark, or CP1252 and its kin.
            Single bytes among texts in UTF-8 are broken rows and no matter of the file.
    """
    start = b""
    for chunk in Chunks(store, path):
        start += chunk
        if len(start) >= _LOOKED_AT:
            start = start[: start.rfind(b"\n") + 1]  # no letter is cut
            break
    where = store.show(path)
    binary = next((what for mark, what in _BINARY.items() if start.startswith(mark)), None)
    if binary is not None or len(start.translate(None, _CONTROLS)) < 0.95 * len(start):
        raise ConfigError(
            f"{where} holds {binary or 'binary data'}, no text; unpack it, or save it as CSV, JSON "
            f"lines or Parquet."
        )
    zeros = (start[::2].count(0), start[1::2].count(0))
    if max(zeros) * 8 > len(start) and min(zeros) * 8 < max(zeros):
        order = "le" if zeros[1] > zeros[0] else "be"
        raise ConfigError(
            f"{where} has a zero in about every other byte, as UTF-16 has; say --encoding "
            f"utf-16-{order}."
        )
    lines = start.split(b"\n")
    bad = [(number, fault) for number, line in enumerate(lines, 1) if (fault := _fault(line))]
    good = sum(not line.isascii() for line in lines) - len(bad)
    if not bad or good:
        return
    number, (byte, value) = bad[0]
    runs = [len(run) for run in _HIGH.findall(start)]
    together = sum(run for run in runs if run > 1)
    if sum(runs) > _WESTERN * len(start) or together > _SIDE_BY_SIDE * sum(runs):
        looks, say = "another encoding, such as gb18030, shift_jis or koi8-r", "NAME"
    else:
        looks, say = f"CP1252 or Latin-1 ({bytes([value]).decode('latin-1')!r})", "cp1252"
        if value < 0xA0:
            looks = f"CP1252 ({bytes([value]).decode('cp1252', 'replace')!r})"
    raise ConfigError(
        f"{where} is not in UTF-8: byte {byte} of line {number} is 0x{value:02X}, which looks like "
        f"{looks}; say --encoding {say}, or --encoding utf-8 to count such rows as failed."
    )


def _fault(line: bytes) -> tuple[int, int] | None:
    """Place (from 1) and value of the first byte that is no UTF-8."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start + 1, line[error.start]
    return None


def separator(header: str, usual: str, url_column: str | None) -> str:
    """What separates the fields: the first mark with which the header names the column of URLs.

    Args:
        usual: of the format; also the answer where no mark does.
        url_column: its name; None for the usual ones, or those of files, or else of keys.
    """
    usual_names = ((*URL_COLUMNS, *FILE_COLUMNS), KEY_COLUMNS)
    for wanted in usual_names if url_column is None else ((url_column.lower(),),):
        for mark in (usual, *_SEPARATORS.replace(usual, "")):
            names = [name.strip().strip('"') for name in header.removesuffix("\r").split(mark)]
            if find_column(names, wanted) is not None:
                return mark
    return usual


def said_separator(line: str) -> str | None:
    """The mark that a line `sep=;` names, as Excel reads and writes it above the header."""
    match = _SAID.fullmatch(line.removesuffix("\r"))
    return match[1] if match else None


def refuse_other_shapes(first: Mapping[str, Any], url_column: str | None, where: str) -> None:
    """Refuse a first object of JSON that is no row.

    Raises:
        ConfigError: it holds the columns, as pandas writes them, or the rows under a key.
    """
    url = find_column(first, URL_COLUMNS if url_column is None else (url_column.lower(),))
    if url is not None and not isinstance(first[url], dict | list):
        return
    inside = list(first.values())
    by_column = {"columns", "data"} <= first.keys() or {"schema", "data"} <= first.keys()
    by_column |= bool(inside) and all(isinstance(part, dict) for part in inside)
    by_column |= url is not None and all(isinstance(part, list) for part in inside)
    if by_column:
        raise ConfigError(
            f"{where} holds columns or numbered rows, as pandas' to_json() writes them; write it "
            f'with df.to_json(PATH, orient="records", lines=True).'
        )
    for key, part in first.items():
        if isinstance(part, list) and part and isinstance(part[0], dict):
            raise ConfigError(
                f"{where} holds its rows under the key {key!r}; give them alone, as "
                f"`jq -c '.[{json.dumps(key)}][]' FILE > rows.jsonl` writes them."
            )
