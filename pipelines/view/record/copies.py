"""Groups of copies: who was kept, why, and how far the others are.

Which copy was kept is the duplicate search's affair (curate.duplicates): the best by its quality
expressions, in their order, and of equals the least key. Here those values are read again and the
first that differs is named in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from curate.base.column_marks import noted_in
from curate.base.duplicate_methods import METHODS
from curate.base.errors import ConfigError
from curate.duplicates.settings import DuplicateSettings
from curate.store.contract import DUPLICATES_NOTE
from curate.store.dataset import Dataset
from curate.store.finite import FINITE
from curate.store.sample_view import SEMDEDUP
from pipelines.report.text import number, words
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.record.caption_rows import fetch
from pipelines.view.tables import Tables

if TYPE_CHECKING:
    import duckdb

LEVELS = (*METHODS, SEMDEDUP)
LARGEST_WINDOW = 100
"""Groups."""
MOST_MEMBERS = 60
"""Members of one group that are sent at most: the kept one and the nearest."""
_UNITS = {"exact": "", "near": "of 64 bits", "embedding": "1 - cosine", SEMDEDUP: "1 - cosine"}
_WORDS = {
    "width * height": ("has more pixels", "pixels"),
    "clip_similarity": ("fits its text better", "fit to its text"),
    "original_width * original_height": ("came with more pixels", "pixels as it came"),
    "original_bytes": ("came with more bytes", "bytes as it came"),
}


def routes(opened: Opened) -> list[Route]:
    """GET /api/copies."""

    def copies(asked: Asked) -> dict[str, Any]:
        tables = opened.tables
        with tables.making:
            known = _listed(tables)
        method = asked.text("method") or next(iter(known), LEVELS[0])
        start, count = asked.whole("start", 0), asked.whole("count", 20, 1, LARGEST_WINDOW)
        found = groups(tables, known, method, start, count)
        return {"method": method, "methods": known, **found}

    return [get("/api/copies", copies)]


def _listed(tables: Tables) -> dict[str, int]:
    """Level of the search -> its groups, in the order of the levels.

    The first time it makes orders.copies, the groups of all levels, the largest of each first: one
    aggregation, after which a window costs milliseconds.
    """
    cursor = tables.connection.cursor()
    cursor.execute(
        'CREATE TABLE IF NOT EXISTS orders.copies AS SELECT method, "group", '
        'row_number() OVER (PARTITION BY method ORDER BY n DESC, "group") - 1 AS place FROM '
        '(SELECT method, "group", count(*) AS n FROM duplicates GROUP BY ALL) '
        "ORDER BY method, place"
    )
    counted = fetch(cursor, "SELECT method, count(*) AS n FROM orders.copies GROUP BY method")
    found = {row["method"]: int(row["n"]) for row in counted}
    return {level: found[level] for level in LEVELS if level in found}


def quality_of(dataset: Dataset) -> list[str]:
    """What the stored search kept by; of a search of an earlier version, what the dataset says."""
    last = noted_in(dataset.table_path("duplicates"), DUPLICATES_NOTE)
    settings = dataset.record().get("settings", {})
    default = DuplicateSettings.model_fields["quality"].default
    found: list[str] = last.get("quality") or settings.get("quality") or default
    return list(found)


def groups(
    tables: Tables, known: Mapping[str, int], method: str, start: int, count: int
) -> dict[str, Any]:
    """A window of the groups of a level, the largest first.

    Raises:
        ConfigError: nobody searched at this level.
    """
    if method not in known:
        raise ConfigError(
            f"No copies by {method!r} are on record (levels: {', '.join(known) or 'none'})."
        )
    cursor = tables.connection.cursor()
    listed = fetch(
        cursor,
        'SELECT "group" FROM orders.copies WHERE method = $method AND place >= $start '
        "AND place < $start + $count ORDER BY place",
        {"method": method, "start": start, "count": count},
    )
    told = of_groups(cursor, tables.dataset, method, [row["group"] for row in listed])
    return {"total": known[method], "quality": quality_of(tables.dataset), "groups": told}


def of_groups(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, method: str, keepers: Sequence[str]
) -> list[dict[str, Any]]:
    """Some groups of a level, by the keys of those that are kept for them, in this order."""
    quality = quality_of(dataset)
    ranked = 'row_number() OVER (PARTITION BY "group" ORDER BY kept DESC, distance, key)'
    members = fetch(
        connection,
        f'WITH mine AS (SELECT *, {ranked} AS place, count(*) OVER (PARTITION BY "group") AS size '
        'FROM duplicates WHERE method = $method AND "group" IN $keepers), '
        f"few AS (SELECT * FROM mine WHERE place <= {MOST_MEMBERS}) "
        'SELECT few.key, few."group", few.kept, few.distance, few.size, '
        "sample.alt_text, sample.width, sample.height "
        "FROM few LEFT JOIN sample ON sample.key = few.key ORDER BY place",
        {"method": method, "keepers": list(keepers)},
    )
    values = _values(connection, quality, [row["key"] for row in members])
    by = _methods_of_pairs(connection, method, members)
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in keepers}
    for row in members:
        told = {name: row[name] for name in ("key", "kept", "distance", "alt_text")}
        told |= {"width": row["width"], "height": row["height"]}
        told["values"] = values.get(row["key"], [None] * len(quality))
        how = by.get(row["key"])
        told |= {"by": how, "unit": _UNITS.get(how or "", "")}
        found[row["group"]].append(told)
    sizes = {row["group"]: int(row["size"]) for row in members}
    return [
        {
            "kept": key,
            "method": method,
            "size": sizes[key],
            "why": _reasons(quality, listed),
            "members": listed,
        }
        for key, listed in found.items()
        if listed
    ]


def _values(
    connection: duckdb.DuckDBPyConnection, quality: Sequence[str], keys: Sequence[str]
) -> dict[str, list[Any]]:
    """Key -> the value of each quality expression; null where it cannot be had any more."""
    import duckdb

    found: dict[str, list[Any]] = {key: [] for key in keys}
    for part in quality:
        sql = f"SELECT key, {FINITE}({part}) AS value FROM sample WHERE key IN $keys"
        try:
            rows = fetch(connection, sql, {"keys": list(keys)})
        except duckdb.Error:  # a column that the search had and that is no more
            rows = []
        told = {row["key"]: row["value"] for row in rows}
        for key, values in found.items():
            values.append(told.get(key))
    return found


def _methods_of_pairs(
    connection: duckdb.DuckDBPyConnection, level: str, members: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Key -> the strictest method that found it a copy of the one that is kept.

    Levels are cumulative, so a distance at level "embedding" may be a number of bits. An exact copy
    of such a copy has no pair of its own with the kept one; its distance is that of its equal.
    """
    pairs = fetch(
        connection,
        "SELECT method, key_a, key_b FROM duplicate_pairs WHERE key_a IN $keys AND key_b IN $keys",
        {"keys": [row["key"] for row in members]},
    )
    order = {method: place for place, method in enumerate(LEVELS)}
    strict: dict[tuple[str, str], str] = {}
    for pair in sorted(pairs, key=lambda one: -order.get(one["method"], 0)):
        strict[pair["key_a"], pair["key_b"]] = pair["method"]
        strict[pair["key_b"], pair["key_a"]] = pair["method"]
    found = {}
    for row in members:
        if row["kept"]:
            continue
        how = strict.get((row["group"], row["key"]))
        if how is None:
            twins = (
                strict.get((row["group"], other["key"]))
                for other in members
                if strict.get((row["key"], other["key"])) == METHODS[0]
            )
            how = next((twin for twin in twins if twin), level)
        found[row["key"]] = how
    return found


def _reasons(quality: Sequence[str], members: Sequence[dict[str, Any]]) -> str:
    """Why the first of these is the one that is kept; each other's `why` says what decided it."""
    kept, others = members[0], members[1:]
    for other in others:
        other["why"], other["decided_by"] = _decided(quality, kept["values"], other["values"])
    kept["why"], kept["decided_by"] = "", None
    if len({other["why"] for other in others}) == 1:
        told = f"The kept one {others[0]['why']}."
        for other in others:
            other["why"] = ""
        return told
    deciding = sorted({other["decided_by"] for other in others if other["decided_by"] is not None})
    names = [_phrase(quality, place)[1] for place in deciding] or ["the lesser key"]
    return f"The kept one is the best by {', then '.join(names)}."


def _decided(
    quality: Sequence[str], kept: Sequence[Any], other: Sequence[Any]
) -> tuple[str, int | None]:
    """Why one is better than the other, behind "The kept one", and which expression says so."""
    for place, (mine, its) in enumerate(zip(kept, other, strict=True)):
        if mine == its:
            continue
        better, name = _phrase(quality, place)
        if its is None:
            return f"has a value of {name} ({_shown(mine)}), the other has none", place
        if mine is None or mine < its:
            return f"was the better by {name}, whose values have changed since the search", place
        return f"{better} ({_shown(mine)} against {_shown(its)})", place
    return "is equal in every quality, and has the lesser key", None


def _phrase(quality: Sequence[str], place: int) -> tuple[str, str]:
    """("has more pixels", "pixels"): better by an expression, and what it is called."""
    part = quality[place]
    if part in _WORDS:
        return _WORDS[part]
    name = words(part) if re.fullmatch(r"[A-Za-z_0-9]+", part) else part
    return f"is higher in {name}", name


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, (bool, str)) else number(float(value))
