"""What every arm is asked to draw: the same prompts, in one or several forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.base.errors import ConfigError
from recaption.prompts.file import Row, rows_of

PROMPTS = pa.schema(
    [
        ("prompt_form", pa.string()),
        ("prompt_index", pa.int64()),  # the same scene has the same index in every form
        ("prompt", pa.string()),
        ("scene", pa.string()),  # JSON of the true scene; null where there is none
    ]
)


def read_prompts(path: Path) -> pa.Table:
    """Prompts of a file, in the schema PROMPTS.

    Raises:
        ConfigError: it is missing, unreadable, or lacks its column.
    """
    rows = read_rows(path)
    if not any("prompt" in row for row in rows):
        raise ConfigError(f"The prompt file {path} needs a column named 'prompt' and one row.")
    for number, row in enumerate(rows, start=1):
        prompt, form = row.get("prompt"), row.get("prompt_form")
        if not isinstance(prompt, str) or not prompt.strip():
            raise ConfigError(f"Row {number} of the prompt file {path} has no text in 'prompt'.")
        if form is not None and not isinstance(form, str):
            raise ConfigError(f"Row {number} of {path} has a 'prompt_form' that is no text.")
    forms = [str(row.get("prompt_form") or "prompt") for row in rows]
    # Prompts are numbered within their form, so that forms of the same scenes stay paired.
    index = np.zeros(len(rows), dtype=np.int64)
    for form in dict.fromkeys(forms):
        members = [position for position, name in enumerate(forms) if name == form]
        index[members] = np.arange(len(members))
    return pa.table(
        [forms, index, [str(row["prompt"]) for row in rows], [None] * len(rows)], schema=PROMPTS
    )


def read_rows(path: Path) -> list[Row]:
    """All rows of a .txt, .jsonl, .csv or .parquet file.

    Raises:
        ConfigError: it is missing, unreadable, or a line of it is.
    """
    rows = []
    for number, row in enumerate(rows_of(path), start=1):
        if row is None:
            raise ConfigError(f"{path} is unreadable (row {number} is no JSON object in UTF-8).")
        rows.append(row)
    return rows
