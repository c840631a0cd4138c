"""Notes in a Parquet file's metadata: what made its columns, and the like, as JSON.

Whoever leaves one reads it here again; that of `curate.store.contract` is the schema's version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError

COLUMNS = b"caplab_columns"
"""Column -> signature of what made it. Names of notes start with "caplab_"; see
`curate.store.dataset`, which keeps them when it writes a table."""


def note(value: Mapping[str, Any], name: bytes = COLUMNS) -> dict[bytes, bytes]:
    """A note as metadata of a table."""
    return {name: json.dumps(value, sort_keys=True).encode()}


def noted(schema: pa.Schema, name: bytes = COLUMNS) -> dict[str, Any]:
    """The note of a schema; empty where it has none. ValueError where it is damaged."""
    value: dict[str, Any] = json.loads((schema.metadata or {}).get(name, b"{}"))
    return value


def noted_in(path: Path, name: bytes = COLUMNS) -> dict[str, Any]:
    """The note of a file, whose footer alone is read; empty where the file is not there.

    Raises:
        DatasetError: the note is damaged.
    """
    try:
        return noted(pq.read_schema(path), name) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} has damaged metadata; delete it.") from error
