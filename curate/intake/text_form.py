"""What a list in text is written in: its encoding, its separator, its shape; sure, or one sentence.

UTF-8 is the rule. A byte order mark tells UTF-16 and UTF-32. Bytes that are neither have no sure
reading: a look at the start of the file says what was seen and which option reads it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import Any

from curate.base.errors import ConfigError
from curate.intake.columns import FILE_COLUMNS, URL_COLUMNS, find_column
from curate.intake.lines import Chunks
from curate.intake.locations import Store

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
        url_column: its name; None for the usual ones, or those of files.
    """
    wanted = (*URL_COLUMNS, *FILE_COLUMNS) if url_column is None else (url_column.lower(),)
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
