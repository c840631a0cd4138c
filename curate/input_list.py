"""Lists of URLs and texts as files: which there are, what they hold, and a stream of their rows.

DuckDB reads every format, so memory stays bounded however long the list is; it works with one
thread, so that rows come in the file's order. Nothing here writes.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

# Recognised names, the most telling first; compared without case.
URL_COLUMNS = ("url", "image_url", "imageurl", "img_url", "image_link", "link", "src")
TEXT_COLUMNS = ("alt_text", "alttext", "alt", "text", "txt", "caption", "title", "description")

_KINDS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_KNOWN = ".parquet, .csv, .tsv or .jsonl, the last three also with .gz"
# Columns that the shards of the list add; an extra column of such a name is renamed.
_OWN_COLUMNS = ("key", "row", "url", "alt_text", "pair_hash")
_MEMORY_LIMIT = "2GB"
_TYPED_ROWS = 200_000  # rows from which the types of a text file's columns are guessed


@dataclass(frozen=True)
class InputList:
    """A list that was read once from end to end: its files, columns and size."""

    files: tuple[Path, ...]
    kind: str
    columns: Mapping[str, str]  # name -> DuckDB type, in the list's order
    url_column: str
    text_column: str
    rows: int
    repeated: np.ndarray  # (K,) uint64, sorted: hashes of the (URL, text) seen more than once

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The rows in order, in batches of about `rows`.

        Columns: url, alt_text (string, as they came), pair_hash (uint64: equal for equal URL and
        text), then every other column under its own name, with "input_" before a name that would
        hide one of ours.
        """
        url, text = _as_text(self.url_column), _as_text(self.text_column)
        selected = [f"{url} AS url", f"{text} AS alt_text", f"hash({url}, {text}) AS pair_hash"]
        for name in self.columns:
            if name not in (self.url_column, self.text_column):
                own = f"input_{name}" if name.lower() in _OWN_COLUMNS else name
                selected.append(f"{_quoted(name)} AS {_quoted(own)}")
        source = _source(self.kind, self.files, _column_types(self))
        with _Reading(self.files) as connection:
            yield from _reader(connection, f"SELECT {', '.join(selected)} FROM {source}", rows)


def inspect_input(
    input_path: Path | str, url_column: str | None = None, text_column: str | None = None
) -> InputList:
    """Find the files and columns of a list and read it once to its end; writes nothing.

    Args:
        input_path: a file, a folder of Parquet files, or a glob pattern.
        url_column, text_column: names; None recognises the usual ones (URL_COLUMNS,
            TEXT_COLUMNS, in any case).

    Raises:
        ConfigError: no such file, unknown extension, unreadable or broken contents, no rows, or a
            missing column; one sentence that says what to change.
    """
    import duckdb

    files = find_files(str(input_path))
    kind = _kind_of(files)
    with _Reading(files) as connection:
        described = connection.execute(f"DESCRIBE SELECT * FROM {_source(kind, files, {})}")
        columns = {name: type_name for name, type_name, *_ in described.fetchall()}
        url = _choose(columns, url_column, URL_COLUMNS, "URL", "--url-column", files)
        text = _choose(columns, text_column, TEXT_COLUMNS, "text", "--text-column", files)
        if url == text:
            raise ConfigError(f"The URL and the text cannot both be the column {url!r}.")
        bare = InputList(files, kind, columns, url, text, 0, np.empty(0, np.uint64))
        try:
            rows, repeated = _read_through(connection, bare)
        except duckdb.Error:
            if kind == "parquet":
                raise
            # A value further down may not fit the type that the first lines suggested; as text
            # every value fits, and what still fails is a broken line.
            columns = dict.fromkeys(columns, "VARCHAR")
            bare = replace(bare, columns=columns)
            rows, repeated = _read_through(connection, bare)
    if rows == 0:
        raise ConfigError(f"{input_path} has no rows; give a list with at least one URL.")
    return replace(bare, rows=rows, repeated=repeated)


def _read_through(connection: duckdb.DuckDBPyConnection, bare: InputList) -> tuple[int, np.ndarray]:
    """Row count and the hashes that come more than once.

    Every column is hashed, so that every page and line is parsed and a broken one is found
    before anything is written. Memory is 24 bytes a row, spilled to disk above the limit.
    """
    source = _source(bare.kind, bare.files, _column_types(bare))
    every = ", ".join(_quoted(name) for name in bare.columns)
    pair = f"hash({_as_text(bare.url_column)}, {_as_text(bare.text_column)})"
    connection.execute(
        f"CREATE TEMP TABLE pairs AS SELECT {pair} AS pair_hash, count(*) AS times, "
        f"bit_xor(hash({every})) AS contents FROM {source} GROUP BY pair_hash"
    )
    counted = connection.execute("SELECT coalesce(sum(times), 0) FROM pairs").fetchone()
    repeated = connection.execute(
        "SELECT pair_hash FROM pairs WHERE times > 1 ORDER BY pair_hash"
    ).fetchnumpy()["pair_hash"]
    return int(counted[0]) if counted else 0, np.asarray(repeated, dtype=np.uint64)


# ---- files ------------------------------------------------------------------------------------


def find_files(input_path: str) -> tuple[Path, ...]:
    """The files that a path, a folder or a glob names, sorted, absolute.

    Raises:
        ConfigError: there is none, or one has no bytes.
    """
    path = Path(input_path)
    if path.is_dir():
        files = sorted(found for found in path.rglob("*.parquet") if found.name[0] != ".")
        if not files:
            raise ConfigError(f"The folder {path} holds no .parquet file; name the list itself.")
    elif path.exists():
        files = [path]
    else:
        files = sorted(Path(found) for found in glob.glob(input_path, recursive=True))
        if not files:
            raise ConfigError(f"The input {input_path} does not exist.")
    for file in files:
        if file.stat().st_size == 0:
            raise ConfigError(f"{file} is empty; give a list with at least one URL.")
    return tuple(file.absolute() for file in files)


def _kind_of(files: Sequence[Path]) -> str:
    kinds = {}
    for file in files:
        bare = file.with_suffix("") if file.suffix == ".gz" else file
        kind = _KINDS.get(bare.suffix.lower())
        if kind is None or (kind == "parquet" and bare != file):
            raise ConfigError(f"The input {file} must end in {_KNOWN}.")
        kinds[kind] = file
    if len(kinds) > 1:
        names = " and ".join(str(file) for file in kinds.values())
        raise ConfigError(f"The input mixes kinds of files ({names}); give one kind.")
    return next(iter(kinds))


def _choose(
    columns: Mapping[str, str],
    wanted: str | None,
    usual: Sequence[str],
    what: str,
    option: str,
    files: Sequence[Path],
) -> str:
    by_lower = {name.lower(): name for name in reversed(list(columns))}
    candidates = usual if wanted is None else (wanted,)
    for candidate in candidates:
        if candidate in columns:
            return candidate
        if candidate.lower() in by_lower:
            return by_lower[candidate.lower()]
    missing = f"no {what} column" if wanted is None else f"no column {wanted!r}"
    raise ConfigError(
        f"{files[0]} has {missing}; its columns are {', '.join(columns)}. Name one with {option}."
    )


# ---- SQL --------------------------------------------------------------------------------------


class _Reading:
    """An in-memory DuckDB connection whose errors become ConfigErrors about `files`."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        self._scratch = tempfile.TemporaryDirectory(prefix="caplab-input-")
        self._connection = duckdb.connect(
            config={
                "threads": 1,
                "memory_limit": _MEMORY_LIMIT,
                "temp_directory": self._scratch.name,
            }
        )
        self._connection.execute("SET enable_progress_bar = false")
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import duckdb

        self._connection.close()
        self._scratch.cleanup()
        if isinstance(error, (duckdb.Error, pa.ArrowException)):
            where = self._files[0] if len(self._files) == 1 else f"{self._files[0].parent}"
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            # DuckDB shows our own SQL from "LINE 1:" on, which tells a person nothing.
            end = next((n for n, line in enumerate(lines) if line.startswith("LINE ")), 3)
            said = " ".join(lines[: min(end, 3)]).split(" Error: ", 1)[-1][:300]
            if "sniffing" in said:
                said = (
                    "some line has more or fewer fields than the first one, or a quote inside a "
                    "field that is not doubled."
                )
            raise ConfigError(
                f"{where} cannot be read as {_KINDS_SHOWN[_kind_of(self._files)]}: {said}"
            ) from error


_KINDS_SHOWN = {"parquet": "Parquet", "csv": "CSV", "tsv": "TSV", "jsonl": "JSON lines"}


def _source(kind: str, files: Sequence[Path], types: Mapping[str, str]) -> str:
    """The table function that reads the files; `types` fixes columns that must not be guessed."""
    listed = "[" + ", ".join(_literal(str(file)) for file in files) + "]"
    if kind == "parquet":
        return f"read_parquet({listed}, union_by_name = true, hive_partitioning = false)"
    typed = "{" + ", ".join(f"{_literal(n)}: {_literal(t)}" for n, t in types.items()) + "}"
    if kind == "jsonl":
        columns = (
            f", columns = {typed}"
            if types
            else f", sample_size = {_TYPED_ROWS}, union_by_name = true"
        )
        return f"read_json({listed}, format = 'newline_delimited'{columns})"
    delimiter = "," if kind == "csv" else "\\t"
    fixed = f", types = {typed}" if types else ""
    # The dialect is stated (RFC 4180), not guessed: a guess from the first lines can be wrong
    # further down. Guessing types from all lines would hold the whole file in memory.
    return (
        f"read_csv({listed}, header = true, delim = '{delimiter}', quote = '\"', escape = '\"', "
        f"sample_size = {_TYPED_ROWS}, allow_quoted_nulls = false, union_by_name = true{fixed})"
    )


def _column_types(source: InputList) -> dict[str, str]:
    """Types for `_source`: URL and text stay text, even where all of them look like numbers."""
    as_text = dict.fromkeys((source.url_column, source.text_column), "VARCHAR")
    return {**source.columns, **as_text}


def _reader(connection: duckdb.DuckDBPyConnection, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
    relation = connection.sql(sql)
    # DuckDB 2 renamed the streaming reader.
    if hasattr(relation, "to_arrow_reader"):
        yield from relation.to_arrow_reader(rows)
    else:
        yield from relation.fetch_arrow_reader(rows)


def _as_text(column: str) -> str:
    return f"CAST({_quoted(column)} AS VARCHAR)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
