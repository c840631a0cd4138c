"""CSV, TSV, JSON lines, JSON and plain text, one row at a time; what cannot be read costs one row.

CSV and TSV follow RFC 4180 with a header; their separator is the mark with which the header names
the URLs' column (curate.intake.text_form). A field in quotes may hold delimiters, line ends and
doubled quotes. An empty field is null, an empty field in quotes is an empty text. A quote that is
never closed would swallow the file; here its line is the broken row and reading goes on with the
next one. A TSV line whose quotes make no sense is taken literally, as tools that write TSV without
quoting mean it.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from curate.base.errors import ConfigError
from curate.base.reasons import Failure, Reason, printable
from curate.intake.locations import Store
from curate.intake.text_form import LONGEST_LINE, Chunks, Lines, said_separator, separator

TextKind = Literal["csv", "tsv", "jsonl", "json", "text"]
Found = tuple[int, Mapping[str, Any] | Failure]
"""Line or object number from 1, and its fields or why it could not be read."""

TEXT_URL = "url"
"""The only column of a plain list."""
_BOM = b"\xef\xbb\xbf"
_TOO_LONG = "\udc00"  # stands for such a line; nothing that is decoded holds this
# A quoted field may span this much; more is taken for a quote that was never closed.
_MOST_LINES, _MOST_CHARACTERS = 200, 256 << 10


def read_text_list(
    store: Store,
    path: str,
    kind: TextKind,
    encoding: str | None = None,
    url_column: str | None = None,
) -> Iterator[Found]:
    """Every row of one file, in order; a damaged end comes as one last broken row.

    Args:
        encoding: of the text; None is UTF-8, or what a mark at the start says.
        url_column: name of the URLs' column, from which the separator is told; None for the usual.

    Raises:
        ConfigError: the file has no header, or no JSON where it should have some.
    """
    if kind == "json":
        yield from _json(store, path, encoding)
        return
    lines = Lines(store, path, encoding)
    decoded = _decoded(lines)
    if kind in ("csv", "tsv"):
        usual = "," if kind == "csv" else "\t"
        yield from _delimited(decoded, usual, url_column, store.show(path))
    elif kind == "jsonl":
        yield from _json_lines(decoded)
    else:
        yield from (
            (n, _line_too_long() if line == _TOO_LONG else {TEXT_URL: line.strip()})
            for n, line in decoded
            if line.strip()
        )
    if lines.damage is not None:
        yield -1, Failure(Reason.DAMAGED_SOURCE, printable(lines.damage)[:300])


def _decoded(lines: Lines) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if line is None:
            yield number, _TOO_LONG
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        # Bytes that are no UTF-8 become lone surrogates, which nothing else can be.
        yield number, line.decode("utf-8", "surrogateescape")


def _not_utf8(text: str) -> bool:
    return not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text)


def _line_too_long() -> Failure:
    return Failure(Reason.UNREADABLE_ROW, f"a line of more than {LONGEST_LINE:,} bytes")


def _no_utf8(text: str) -> Failure:
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _unreadable("bytes that are no UTF-8", shown)


def _unreadable(why: str, line: str) -> Failure:
    return Failure(Reason.UNREADABLE_ROW, printable(f"{why}: {line[:200]}")[:300])


# ---- CSV and TSV ------------------------------------------------------------------------------


def _delimited(
    lines: Iterator[tuple[int, str]], usual: str, url_column: str | None, where: str
) -> Iterator[Found]:
    top = next(lines, None)
    if top is None:
        return
    delimiter = said_separator(top[1])
    if delimiter is None:
        delimiter = separator(top[1], usual, url_column)
        lines = itertools.chain([top], lines)
    records = _Records(lines, delimiter)
    first = next(iter(records), None)
    if first is None:
        return
    if not isinstance(first[2], list):
        raise ConfigError(f"{where} has no readable header line ({first[2]}).")
    names = _unique([name or "" for name in first[2]])
    for number, raw, fields in records:
        if raw == _TOO_LONG:
            yield number, _line_too_long()
        elif isinstance(fields, str):
            yield number, _unreadable(fields, raw)
        elif len(fields) != len(names):
            why = f"{len(fields)} fields where the header has {len(names)}"
            yield number, _unreadable(why, raw)
        elif _not_utf8(raw):
            yield number, _no_utf8(raw)
        else:
            yield number, dict(zip(names, fields, strict=True))


class _Records:
    """(line number, raw text, fields or what is wrong) of each record."""

    def __init__(self, lines: Iterator[tuple[int, str]], delimiter: str) -> None:
        self._lines = lines
        self._again: deque[tuple[int, str]] = deque()
        self._delimiter = delimiter
        self._width: int | None = None
        mark = re.escape(delimiter)
        # A field in quotes (group 1) or a bare one (group 2), and what ends it (group 3).
        self._field = re.compile(
            rf'(?:"((?:[^"]|"")*+)"|([^{mark}"][^{mark}]*+|))({mark}|\Z)', re.DOTALL
        )

    def __iter__(self) -> Iterator[tuple[int, str, list[str | None] | str]]:
        while (line := self._next()) is not None:
            number, raw = line
            if raw in ("", "\r"):
                continue
            if '"' not in raw:
                bare = raw.removesuffix("\r").split(self._delimiter)
                fields: list[str | None] | str = [field or None for field in bare]
            else:
                raw, fields = self._quoted(raw)
            if isinstance(fields, list) and self._width is None:
                self._width = len(fields)
            yield number, raw, fields

    def _next(self) -> tuple[int, str] | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _quoted(self, first: str) -> tuple[str, list[str | None] | str]:
        """The record that starts with this line, with further lines where a quote is open."""
        fields = self._split(first)
        raw = first
        more: list[tuple[int, str]] = []
        while fields is None and len(more) < _MOST_LINES and len(raw) < _MOST_CHARACTERS:
            line = self._next()
            if line is None:
                break
            if line[1] == _TOO_LONG:
                self._again.append(line)
                break
            more.append(line)
            raw += "\n" + line[1]
            if '"' in line[1]:
                fields = self._split(raw)
        if isinstance(fields, list) and self._width in (None, len(fields)):
            return raw, fields
        # The quote was no quote: only the first line pays for it.
        self._again.extendleft(reversed(more))
        literal = first.removesuffix("\r").split(self._delimiter)
        if self._delimiter == "\t" and self._width in (None, len(literal)):
            return first, [field or None for field in literal]
        alone = self._split(first)
        if isinstance(alone, list):
            return first, alone  # of the wrong width
        return first, alone or "a quote that is never closed"

    def _split(self, raw: str) -> list[str | None] | str | None:
        """Fields; None while a quote is open; a text where the quotes make no sense."""
        raw = raw.removesuffix("\r")  # only the record's own line end, none inside a field
        fields: list[str | None] = []
        at = 0
        while True:
            match = self._field.match(raw, at)
            if match is None:
                closed = re.compile(r'"(?:[^"]|"")*+"', re.DOTALL).match(raw, at)
                return "text behind a closing quote" if closed else None
            quoted, bare, end = match.groups()
            fields.append(quoted.replace('""', '"') if quoted is not None else bare or None)
            if not end:
                return fields
            at = match.end()


def _unique(names: list[str]) -> list[str]:
    """Header names; an empty or repeated one gets its column's number."""
    seen: set[str] = set()
    unique = []
    for number, name in enumerate(names, 1):
        own = name if name and name not in seen else f"{name or 'column'}_{number}"
        while own in seen or (own != name and own in names):
            own += "_"
        seen.add(own)
        unique.append(own)
    return unique


# ---- JSON -------------------------------------------------------------------------------------


def _json_lines(lines: Iterator[tuple[int, str]]) -> Iterator[Found]:
    for number, line in lines:
        if not line.strip():
            continue
        if line == _TOO_LONG:
            yield number, _line_too_long()
            continue
        if _not_utf8(line):
            yield number, _no_utf8(line)
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, _unreadable(str(error) or type(error).__name__, line)
            continue
        yield number, found if isinstance(found, dict) else _unreadable("no JSON object", line)


def _json(store: Store, path: str, encoding: str | None) -> Iterator[Found]:
    """An array of objects, read object by object; an object per line is read as JSON lines."""
    chunks = Chunks(store, path, encoding)
    stream = iter(chunks)
    start = b""
    while len(start) < LONGEST_LINE and (chunk := next(stream, b"")):
        start += chunk
        if start.removeprefix(_BOM).strip():
            break
    opening = start.removeprefix(_BOM).lstrip()[:1]
    if opening == b"{":
        line = start.removeprefix(_BOM).lstrip().partition(b"\n")[0].rstrip()
        # An object that goes on in the next line is not one a line.
        if line.endswith(b"}") or len(line) == len(start):
            yield from read_text_list(store, path, "jsonl", encoding)
            return
    elif opening != b"[":
        if chunks.damage is not None:
            raise ConfigError(f"{store.show(path)} cannot be read: {chunks.damage}.")
        raise ConfigError(f"{store.show(path)} must hold a JSON array of objects, or one a line.")
    content = start.removeprefix(_BOM).lstrip()
    yield from _objects(content.removeprefix(b"["), stream, closed=opening == b"[")
    if chunks.damage is not None:
        yield -1, Failure(Reason.DAMAGED_SOURCE, printable(chunks.damage)[:300])


def _objects(content: bytes, stream: Iterator[bytes], closed: bool) -> Iterator[Found]:
    """The objects of an array whose opening bracket is read already.

    `closed`: a bracket must end them; otherwise they stand one behind the other.
    """
    decoder = json.JSONDecoder()
    utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text, at, number, ended = utf8.decode(content), 0, 0, False
    while True:
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return
        problem = "the array is not closed"
        try:
            value, end = decoder.raw_decode(text, at) if at < len(text) else (None, -1)
        except (ValueError, RecursionError) as error:
            value, end, problem = None, -1, str(error) or type(error).__name__
        # What does not parse, or touches the end, may only be cut: look again with twice as much.
        if (end < 0 or end == len(text)) and not ended and len(text) - at <= LONGEST_LINE:
            text, at = text[at:], 0
            wanted = 2 * len(text) + 1
            while len(text) < wanted and not ended:
                chunk = next(stream, None)
                ended = chunk is None
                text += utf8.decode(chunk or b"", final=ended)
            continue
        if end < 0 and at == len(text) and not closed:
            return
        if end < 0:
            lost = printable(f"after object {number}: {problem}: {text[at : at + 100]}")
            yield -1, Failure(Reason.DAMAGED_SOURCE, lost[:300])
            return
        number += 1
        shown = text[at:end]
        if _not_utf8(shown):
            yield number, _no_utf8(shown)
        else:
            yield number, value if isinstance(value, dict) else _unreadable("no object", shown)
        at = end


_BETWEEN = re.compile(r"[\s,]*")


def _skip(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at
