"""The selections that a picture is in, and of the others the rule or step that dropped it.

A stored selection has its rules as plain SQL in its record. They are computed again for the one
picture, over the tables as they are now: where these have changed since, the stored keys decide and
the rules may disagree, which is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from curate.base.errors import ConfigError, DatasetError
from curate.duplicates.settings import DuplicateSettings
from curate.scoring.scorers.head_source import add_head_functions
from curate.selection.rules import guarded, split_rules
from curate.store.dataset import Dataset
from curate.store.sample_view import SampleTables
from curate.store.scans import parquet_scan, sql_name
from pipelines.view.opened import Opened
from pipelines.view.record.caption_rows import fetch

_IN_SELECTION = re.compile(r'"in selection ([^"]+)"')
RULE, COPIES, CAP, CHANGED = "rule", "copies", "cap", "changed"
"""What dropped a picture: a rule; a better copy; the size that groups are cut to; none of these."""


def of_picture(opened: Opened, key: str) -> list[dict[str, Any]]:
    """Every selection of the dataset, by name.

    Returns:
        name, where, selected (of all), inside, weight; rules: [{rule, passed, values}], passed None
        where a score is missing; dropped_by: {step, text, better} or None; problem: why the rules
        could not be computed, or "".
    """
    assert opened.dataset is not None
    dataset = opened.dataset
    return [_one(opened, dataset, name, key) for name in dataset.selections()]


def _one(opened: Opened, dataset: Dataset, name: str, key: str) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "where": None, "selected": None, "rules": []}
    told |= {"weight": None, "dropped_by": None, "problem": ""}
    try:
        record = dataset.selection_record(name)
        columns = "key, weight" if dataset.is_weighted(name) else "key"
        found = fetch(
            opened.cursor(),
            f"SELECT {columns} FROM {parquet_scan(dataset.selection_path(name))} WHERE key = $key",
            {"key": key},
        )
    except (DatasetError, OSError, pa.ArrowException, duckdb.Error) as error:
        return told | {"inside": None, "problem": str(error).partition("\n")[0]}
    told |= {name: record.get(name) for name in ("where", "selected")}
    told |= {"inside": bool(found), "weight": found[0].get("weight") if found else None}
    if not {"where", "rules", "sql"} <= set(record):
        return told | {"problem": "Its record does not say by which rules it was made."}
    try:
        told["rules"] = _rules(opened, record, key)
    except (ConfigError, DatasetError, duckdb.Error) as error:
        said = str(error).partition("\n")[0]
        return told | {"problem": f"The rules cannot be computed again: {said}"}
    if not found:
        told["dropped_by"] = _dropped_by(opened, dataset, record, name, key, told["rules"])
    return told


def _rules(opened: Opened, record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    tables = opened.sample_tables()
    tables.read_copy("copied.sample", list(opened.tables.columns))
    connection = tables.connection
    found = []
    add_head_functions(connection, record["where"])
    for text, sql in zip(record["rules"], record["sql"], strict=True):
        for name in _IN_SELECTION.findall(sql):
            tables.add_selection(f"in selection {name}", name)
        columns = _columns(tables, sql)
        shown = ", ".join(sql_name(name) for name in columns)
        rows = fetch(
            connection,
            f"SELECT ({guarded(connection, sql)}) AS passed_{', ' + shown if shown else ''} "
            f"FROM ({tables.source(columns)}) WHERE key = $key",
            {"key": key},
        )
        row = rows[0] if rows else {}
        values = {name: _plain(row.get(name)) for name in columns}
        found.append({"rule": text, "passed": row.get("passed_"), "values": values})
    return found


def _columns(tables: SampleTables, sql: str) -> list[str]:
    rules = split_rules(tables.connection, sql, tables.columns)
    return list(dict.fromkeys(name for rule in rules for name in rule.columns))


def _plain(value: Any) -> Any:
    return f"{len(value)} numbers" if isinstance(value, list) else value


def _dropped_by(
    opened: Opened,
    dataset: Dataset,
    record: Mapping[str, Any],
    name: str,
    key: str,
    rules: list[dict[str, Any]],
) -> dict[str, Any]:
    failed = next((one for one in rules if one["passed"] is not True), None)
    if failed is not None:
        why = "" if failed["passed"] is False else " (a score that it needs is missing)"
        return {"step": RULE, "text": f"{failed['rule']}{why}", "better": None}
    if copies := record.get("duplicates"):
        better = _kept_copy(opened, dataset, name, key, copies["methods"])
        if better is not None:
            by = ", ".join(copies.get("quality") or DuplicateSettings().quality)
            text = f"another copy of it is kept, the better one by {by}"
            return {"step": COPIES, "text": text, "better": better}
    if record.get("balance"):
        cut = f"its group of {record['balance']['expression']} was cut to its size"
        return {"step": CAP, "text": cut, "better": None}
    text = "by what was stored then; by the tables of now it would pass"
    return {"step": CHANGED, "text": text, "better": None}


def _kept_copy(
    opened: Opened, dataset: Dataset, name: str, key: str, methods: list[str]
) -> str | None:
    """A copy of the picture, by pairs of these methods, that is in the selection."""
    keys = parquet_scan(dataset.selection_path(name))
    rows = fetch(
        opened.cursor(),
        "WITH near AS (SELECT CASE WHEN key_a = $key THEN key_b ELSE key_a END AS key, distance "
        "FROM duplicate_pairs WHERE (key_a = $key OR key_b = $key) AND method IN $methods) "
        f"SELECT key FROM near WHERE key IN (SELECT key FROM {keys}) ORDER BY distance, key",
        {"key": key, "methods": methods or [""]},
    )
    return rows[0]["key"] if rows else None
