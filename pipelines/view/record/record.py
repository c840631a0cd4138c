"""GET /api/sample/KEY: all that the dataset knows of one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from starlette.routing import Route

from curate.base.arrow_columns import to_python
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_json
from curate.store.captions import SCORED_CAPTION
from curate.store.contract import STORED
from curate.store.dataset import Dataset
from curate.store.scans import parquet_rows
from pipelines.view.answers import Asked, get
from pipelines.view.failed import meaning
from pipelines.view.opened import Opened
from pipelines.view.record import copies, selections
from pipelines.view.record.caption_rows import caption_rows, fetch
from pipelines.view.record.scores import grouped_scores
from recaption.gates.registry import GATES
from recaption.human.marks import get_ready, marks_source

if TYPE_CHECKING:
    import duckdb

_NOT_INPUT = ("key", "row", "url", "alt_text", "alt_texts")
_LONGEST_INPUT = 4000
"""Characters of one further field of the input."""


def routes(opened: Opened) -> list[Route]:
    """GET /api/sample/KEY."""

    def sample(asked: Asked) -> dict[str, Any]:
        get_ready()
        return record(opened, asked.text("key"))

    return [get("/api/sample/{key}", sample)]


def record(opened: Opened, key: str) -> dict[str, Any]:
    """The whole record of a picture, stored or failed.

    Raises:
        ConfigError: no row of the dataset has this key.
    """
    dataset = dataset_of(opened)
    cursor = opened.cursor()
    found = fetch(cursor, "SELECT * FROM samples WHERE key = $key", {"key": key})
    if not found:
        raise ConfigError(f"There is no picture {key[:64]!r} here.")
    row = found[0]
    stored = row["status"] == STORED
    mine = marks_source(opened.by)
    captions = caption_rows(cursor, dataset, {key: row["shard"]}, mine)[key]
    _add_scores(cursor, dataset, key, captions)
    return {
        "key": key,
        "sample": row,
        "host": urlsplit(row["url"] or "").hostname,
        "list": _list(dataset),
        "input": _input(dataset, row),
        "failure": None if stored else meaning(row["reason"]),
        "changes": _changes(row, dataset.record().get("settings", {})) if stored else [],
        "scores": _scores(opened, key) if dataset.has_table("scores") else [],
        "captions": captions,
        "duplicates": _duplicates(opened, dataset, key),
        "references": fetch(
            cursor,
            'SELECT purpose, "references", reference, method, distance FROM reference_matches '
            "WHERE key = $key ORDER BY ALL",
            {"key": key},
        ),
        "selections": selections.of_picture(opened, key) if stored else [],
        "clip_model": _clip_model(dataset),
        "gates": {name: gate.meaning for name, gate in GATES.items()},
    }


def dataset_of(opened: Opened) -> Dataset:
    """The dataset that is looked at; DatasetError where there is none."""
    if opened.dataset is None:
        raise DatasetError(f"No dataset is known of {opened.directory}.")
    return opened.dataset


def shard_of(opened: Opened, key: str) -> str:
    """The shard that a row belongs to; ConfigError where no row has this key."""
    rows = fetch(opened.cursor(), "SELECT shard FROM samples WHERE key = $key", {"key": key})
    if not rows:
        raise ConfigError(f"There is no picture {key[:64]!r} here.")
    return str(rows[0]["shard"])


def _list(dataset: Dataset) -> dict[str, Any]:
    """Which list the row is of."""
    path = dataset.directory / "input" / "input.json"
    intake = read_json(path) if path.exists() else {}
    files = intake.get("files") or []
    return {
        "input": dataset.record().get("identity", {}).get("input"),
        "rows": intake.get("rows"),
        "files": len(files),
        "local": bool(intake.get("local")),
    }


def _input(dataset: Dataset, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields that came with the row beyond URL and text: columns of the list, where it lay."""
    path = dataset.input_path(row["shard"])
    try:
        rows = parquet_rows(path)
    except (FileNotFoundError, DatasetError):  # a dataset of tables alone is looked at as well
        return []
    if "key" not in rows.column_names:
        return []
    mine: pa.Table = rows.filter(pc.equal(rows.column("key"), row["key"]))
    told = []
    for name in mine.column_names:
        if name in _NOT_INPUT or mine.num_rows == 0:
            continue
        value = to_python(mine.column(name))[0]
        if value is not None:
            text = value if isinstance(value, (int, float, bool)) else str(value)[:_LONGEST_INPUT]
            told.append({"name": name, "value": text})
    return told


def _changes(row: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What was made of the file on its way into the shard, in words."""
    changes = []
    before = (row["original_width"], row["original_height"])
    after = (row["width"], row["height"])
    if before != after and None not in (*before, *after):
        mode = settings.get("resize_mode")
        told = f"resized from {before[0]:,} × {before[1]:,} to {after[0]:,} × {after[1]:,} pixels"
        shrunk = after[0] * after[1] / max(1, before[0] * before[1])
        told += f" ({100 * shrunk:.3g}% of its pixels"
        changes.append(told + (f"; resize_mode {mode})" if mode else ")"))
    came, lies = row["original_format"], row["format"]
    if came and lies and came != {"jpg": "jpeg"}.get(lies, lies):
        changes.append(f"came as {came}, stored as {lies}")
    return changes


def _scores(opened: Opened, key: str) -> list[dict[str, Any]]:
    cursor = opened.cursor()
    rows = fetch(cursor, "SELECT * FROM scores WHERE key = $key", {"key": key})
    if not rows:
        return []
    described = cursor.execute("DESCRIBE scores").fetchall()
    return grouped_scores(rows[0], {str(row[0]): str(row[1]) for row in described})


def _add_scores(
    cursor: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    key: str,
    captions: list[dict[str, Any]],
) -> None:
    """Give each caption `scored`: what `caplab score --captions` said of its present text."""
    scored = {}
    if dataset.has_table("caption_scores"):
        scan = dataset.scan("caption_scores", union_by_name=True)
        for row in fetch(cursor, f"SELECT * FROM {scan} WHERE key = $key", {"key": key}):
            scored[tuple(row.pop(name) for name in SCORED_CAPTION)] = row
    for caption in captions:
        caption["scored"] = scored.get(tuple(caption[name] for name in SCORED_CAPTION), {})


def _duplicates(opened: Opened, dataset: Dataset, key: str) -> list[dict[str, Any]]:
    """The group of the picture at each level at which it has one."""
    cursor = opened.cursor()
    mine = fetch(cursor, 'SELECT method, "group" FROM duplicates WHERE key = $key', {"key": key})
    levels = {row["method"]: row["group"] for row in mine}
    found = []
    for level in copies.LEVELS:
        if level in levels:
            found += copies.of_groups(cursor, dataset, level, [levels[level]])
    return found


def _clip_model(dataset: Dataset) -> str | None:
    path = dataset.directory / "scores.json"
    settings = read_json(path).get("settings", {}) if path.exists() else {}
    model = settings.get("clip_model")
    return None if model is None else str(model)
