"""What the page has to know first: columns and their ranges, selections, captions, counts."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

from starlette.routing import Route

from curate.base.kinds import HUMAN
from curate.store.dataset import Dataset
from curate.store.scans import sql_name
from pipelines.report.palette import Palette
from pipelines.report.text import words
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.record.caption_rows import captions_of
from pipelines.view.runs.tables import marks
from pipelines.view.tables import Tables, kind_of
from recaption.human.marks import human_sources

_HASHES = ("text_hash",)


def routes(opened: Opened) -> list[Route]:
    """GET /api/about. Two questions at once are one scan."""
    known: dict[str, dict[str, Any]] = {}
    lock = threading.Lock()

    def about(asked: Asked) -> dict[str, Any]:
        base: dict[str, Any] = {
            "kind": opened.kind,
            "name": opened.directory.name,
            "directory": str(opened.directory),
        }
        if opened.dataset is None:
            return {**base, "pages": [opened.kind]}
        tables = opened.tables
        with lock:
            if tables.mark not in known:
                known.clear()
                known[tables.mark] = facts(tables)
            found = known[tables.mark]
        # People's captions come one by one, and change nothing else.
        kinds = [*found["kinds"], *_kinds(tables, human_sources(tables.dataset))]
        found = {**found, "kinds": kinds, "pictures": opened.pictures}
        signs = marks(Palette(), dict.fromkeys([*(one["kind"] for one in kinds), HUMAN]))
        return {**base, **found, "marks": signs, "pages": _pages(opened, found)}

    return [get("/api/about", about)]


def facts(tables: Tables) -> dict[str, Any]:
    """All of it, of the tables as they are: one scan of `sample` and one of the captions."""
    cursor = tables.connection.cursor()
    status = dict(cursor.execute("SELECT status, count(*) FROM samples GROUP BY status").fetchall())
    methods = [
        row[0]
        for row in cursor.execute("SELECT DISTINCT method FROM duplicates ORDER BY 1").fetchall()
    ]
    machines = set(tables.dataset.caption_sources()) - set(human_sources(tables.dataset))
    return {
        "version": tables.mark,
        "stored": int(status.get("stored", 0)),
        "failed": int(status.get("failed", 0)),
        "columns": columns(tables),
        "selections": [_selection(tables.dataset, name) for name in tables.dataset.selections()],
        "kinds": _kinds(tables, sorted(machines)),
        "searchable": tables.dataset.has_table("embeddings"),
        "methods": methods,
    }


def columns(tables: Tables) -> list[dict[str, Any]]:
    """Name, label, type, and of numbers the range and the digits that tell their values apart."""
    types = {name: kind_of(kind) for name, kind in tables.columns.items()}
    types |= {name: "text" for name in types if name in _HASHES}  # numbers by type alone
    numbers = [name for name, kind in types.items() if kind == "number"]
    parts = ", ".join(f"min({n}), max({n})" for n in map(sql_name, numbers))
    found = tables.connection.cursor().execute(f"SELECT {parts or 'NULL'} FROM sample")
    ends = found.fetchall()[0]
    ranges = {name: ends[2 * i : 2 * i + 2] for i, name in enumerate(numbers)}
    told = []
    for name, kind in types.items():
        low, high = ranges.get(name, (None, None))
        whole = "INT" in tables.columns[name]
        told.append(
            {
                "name": name,
                "label": words(name),
                "type": kind,
                "low": low,
                "high": high,
                "digits": 0 if whole else _digits(low, high),
            }
        )
    return told


def _digits(low: float | None, high: float | None) -> int:
    """Decimals that tell a thousandth of the range."""
    if low is None or high is None or high <= low:
        return 3
    return max(0, min(6, 3 - math.ceil(math.log10(high - low))))


def _selection(dataset: Dataset, name: str) -> dict[str, Any]:
    path = dataset.selection_path(name).with_suffix(".json")
    record = dataset.selection_record(name) if path.exists() else {}
    return {"name": name, "where": record.get("where"), "selected": record.get("selected")}


def _kinds(tables: Tables, sources: Iterable[str]) -> list[dict[str, Any]]:
    """Kind -> by whom of these, and how many captions."""
    kinds: dict[str, dict[str, Any]] = {}
    for source in sources:
        cursor = tables.connection.cursor()
        counted = cursor.execute(
            f"SELECT kind, count(*) FROM {captions_of(cursor, tables.dataset, source)} "
            "WHERE status = 'ok' GROUP BY kind ORDER BY kind"
        )
        for kind, count in counted.fetchall():
            found = kinds.setdefault(kind, {"kind": kind, "sources": [], "count": 0})
            found["sources"].append(source)
            found["count"] += count
    return list(kinds.values())


def _pages(opened: Opened, found: dict[str, Any]) -> list[str]:
    """The pages that have something to show here."""
    pages: list[str] = [opened.kind] if opened.kind != "dataset" else []
    pages += ["pictures", "rule"]
    pages += ["copies"] if found["methods"] else []
    pages += ["captions"] if found["kinds"] else []
    return pages + (["search"] if found["searchable"] else [])
