"""Rows of a file, of prompts above all: a line each (.txt), JSON lines, CSV or Parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError

Row = Mapping[str, Any]

EMPTY_PROMPT = "empty_prompt"
UNREADABLE_LINE = "unreadable_line"


@dataclass(frozen=True)
class ListedPrompt:
    """One row of a list: a prompt, or the reason why there is none."""

    prompt: str | None
    reason: str | None = None

    @property
    def sha256(self) -> str | None:
        """Hex sha256 of the prompt's UTF-8 bytes."""
        return None if self.prompt is None else hashlib.sha256(self.prompt.encode()).hexdigest()


def read_prompts(path: Path, column: str = "prompt") -> list[ListedPrompt]:
    """Every row of a list, in order. Blank lines of text files are no rows.

    Args:
        column: that holds the prompts; of a .txt, where each line is one, it is "prompt".

    Raises:
        ConfigError: the file is missing, unreadable, of another kind, holds no row, or none of its
            rows has the column.
    """
    column = "prompt" if path.suffix.lower() == ".txt" else column
    rows = list(rows_of(path, [column]))
    if not rows:
        raise ConfigError(f"{path} holds no prompts.")
    if all(row is None or column not in row for row in rows):
        raise ConfigError(f"{path} has no column {column!r}.")
    return [
        ListedPrompt(None, UNREADABLE_LINE) if row is None else _listed(row.get(column))
        for row in rows
    ]


def rows_of(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row | None]:
    """The rows of a .txt (a prompt a line), .jsonl, .ndjson, .csv or .parquet file, as they come.

    None stands for a line that is no UTF-8 or no JSON object. Values of a CSV are texts. Memory is
    a batch of rows, but for a CSV.

    Args:
        columns: those that are wanted; all where None. JSON brings all.

    Raises:
        ConfigError: the file is missing, unreadable, or of another kind.
    """
    readers = {
        ".txt": _lines,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    if not path.is_file():
        raise ConfigError(f"{path} does not exist.")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} must be {', '.join(readers)}.")
    try:
        yield from reader(path, columns)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path} is unreadable ({error}).") from error


def _decoded(path: Path) -> Iterator[str | None]:
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            try:
                text = line.decode("utf-8" if number else "utf-8-sig").strip()
            except UnicodeDecodeError:
                yield None
                continue
            if text:
                yield text


def _lines(path: Path, _: Sequence[str] | None) -> Iterator[Row | None]:
    for text in _decoded(path):
        yield None if text is None else {"prompt": text}


def _json_lines(path: Path, _: Sequence[str] | None) -> Iterator[Row | None]:
    for text in _decoded(path):
        try:
            row = None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            row = None
        yield row if isinstance(row, dict) else None


def _csv(path: Path, columns: Sequence[str] | None) -> Iterator[Row | None]:
    from pyarrow import csv

    names = csv.open_csv(path).schema.names
    wanted = [name for name in names if columns is None or name in columns]
    # Texts stay the texts they are: 007 is no seven.
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted
    )
    yield from csv.read_csv(path, convert_options=options).to_pylist()


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row | None]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = [name for name in names if columns is None or name in columns]
        for batch in file.iter_batches(1024, columns=wanted):
            yield from batch.to_pylist() if wanted else [{}] * batch.num_rows


def _listed(value: object) -> ListedPrompt:
    if not isinstance(value, str) or not value.strip():
        return ListedPrompt(None, EMPTY_PROMPT)
    # JSON can spell a lone surrogate, which no UTF-8 file can hold.
    return ListedPrompt(value.strip().encode("utf-8", "replace").decode())
