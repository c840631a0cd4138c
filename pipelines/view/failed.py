"""GET /api/failed: the rows of the list that have no picture, by reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from curate.base.reasons import Reason
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened

LARGEST_WINDOW = 200
"""Rows."""
_FAILED = "status = 'failed'"
_LONGEST = 400
"""Characters of a URL, a text or a detail; the row's own page has all of it."""
_CUT = ", ".join(f'"left"({name}, {_LONGEST}) AS {name}' for name in ("url", "alt_text", "detail"))


def routes(opened: Opened) -> list[Route]:
    """GET /api/failed. Cost: one scan of the samples' reasons, and one for the rows."""

    def failed(asked: Asked) -> dict[str, Any]:
        start, count = asked.whole("start", 0), asked.whole("count", 50, 1, LARGEST_WINDOW)
        cursor = opened.cursor()
        counted = cursor.execute(
            f"SELECT coalesce(reason, ''), count(*) FROM samples WHERE {_FAILED} "
            "GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        reason = asked.text("reason")
        wanted = "coalesce(reason, '') = $1" if reason else "$1 = ''"
        rows = cursor.execute(
            f'SELECT key, "row", reason, {_CUT} FROM samples WHERE {_FAILED} AND {wanted} '
            f'ORDER BY "row" LIMIT {count} OFFSET {start}',
            [reason],
        )
        names = [column[0] for column in rows.description or []]
        return {
            "total": sum(many for name, many in counted if reason in ("", name)),
            "reasons": [{"reason": name, "count": many, **meaning(name)} for name, many in counted],
            "rows": [dict(zip(names, row, strict=True)) for row in rows.fetchall()],
        }

    return [get("/api/failed", failed)]


def meaning(reason: str | None) -> Mapping[str, Any]:
    """What a reason says for a person, its class, and whether another try may help."""
    try:
        known = Reason.named(reason or "")
    except ValueError:
        return {"meaning": "", "class": "", "may_pass": False}
    return {
        "meaning": known.meaning,
        "class": known.reason_class.value,
        "may_pass": known.may_pass,
    }
