"""Lists of prompts: a line each (.txt), JSON lines (.jsonl) or Parquet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError

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
        column: that holds the prompts, in JSON lines and Parquet.

    Raises:
        ConfigError: the file is missing, unreadable, of another kind, holds no row, or none of its
            rows has the column.
    """
    if not path.is_file():
        raise ConfigError(f"The prompt list {path} does not exist.")
    readers = {".txt": _text, ".jsonl": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"The prompt list {path} must be .txt, .jsonl or .parquet.")
    try:
        rows = reader(path, column)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise ConfigError(f"The prompt list {path} cannot be read ({error}).") from error
    if not rows:
        raise ConfigError(f"The prompt list {path} holds no prompts.")
    return rows


def _text(path: Path, _: str) -> list[ListedPrompt]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [ListedPrompt(line.strip()) for line in lines if line.strip()]


def _json_lines(path: Path, column: str) -> list[ListedPrompt]:
    rows: list[ListedPrompt] = []
    found = False
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            rows.append(ListedPrompt(None, UNREADABLE_LINE))
            continue
        found = found or column in record
        rows.append(_listed(record.get(column)))
    if rows and not found:
        raise ConfigError(f"The prompt list {path} has no column {column!r}.")
    return rows


def _parquet(path: Path, column: str) -> list[ListedPrompt]:
    if column not in pq.read_schema(path).names:
        raise ConfigError(f"The prompt list {path} has no column {column!r}.")
    values = pq.read_table(path, columns=[column]).column(column).to_pylist()
    return [_listed(value) for value in values]


def _listed(value: object) -> ListedPrompt:
    if not isinstance(value, str) or not value.strip():
        return ListedPrompt(None, EMPTY_PROMPT)
    # JSON can spell a lone surrogate, which no UTF-8 file can hold.
    return ListedPrompt(value.strip().encode("utf-8", "replace").decode())
