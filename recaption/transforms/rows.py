"""Derived captions as rows of the captions table."""

from __future__ import annotations

import json
from bisect import bisect_left
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from curate.base.provenance import package_versions
from curate.store.contract import CAPTIONS
from recaption.captioning.collapse import NO_SOURCE
from recaption.captioning.drafts import FAILED, OK
from recaption.captioning.rows import text_columns
from recaption.measure.token_counts import TokenCounter
from recaption.structured.schema import Unread
from recaption.transforms.derivation import Derivation
from recaption.transforms.rules import Columns, Derived

UNCHANGED = "unchanged"
"""Flag of a caption that the rule left as it was."""


def derived_rows(
    source_rows: pa.Table,
    columns: Columns,
    made: Derived,
    own: range,
    derivation: Derivation,
    name: str,
    made_from: str,
    tokens: TokenCounter,
) -> tuple[pa.Table, dict[str, int]]:
    """One shard's rows of the captions schema, by key and sample index.

    Args:
        source_rows: the shard's captions of the kind `of`, accepted or not.
        own: the rows of `columns` that are this shard's.
        name: of the set.
        made_from: who wrote the captions that it is made from.
        tokens: counts the tokens.

    Returns:
        The rows, and "changed" and "changeable" of this shard's captions.
    """
    first, behind = bisect_left(made.rows, own.start), bisect_left(made.rows, own.stop)
    rows: list[dict[str, Any]] = [_row(columns, made, place) for place in range(first, behind)]
    many = derivation.cuts if derivation.rule == "random_length" else 1
    for one in source_rows.to_pylist():
        if one["status"] != OK:
            rows.append(
                {
                    "key": one["key"],
                    "sample_index": one["sample_index"] * many,
                    "status": FAILED,
                    "reason": NO_SOURCE,
                    "detail": one["reason"],
                    "flags": [],
                }
            )
    rows.sort(key=lambda one: (one["key"], one["sample_index"]))
    versions = package_versions()
    same = {
        "kind": name,
        "engine": "derived",
        "model": made_from,
        "prompt_id": derivation.rule,
        "alt_text_shown": False,
        "sampling": json.dumps(derivation.decisive(), sort_keys=True, ensure_ascii=False),
        "versions": json.dumps({n: versions.get(n) for n in ("python", "caption-lab")}),
        "created_at": datetime.now(UTC),
    }
    values: dict[str, list[Any]] = {
        field: [one.get(field, same.get(field)) for one in rows] for field in CAPTIONS.names
    }
    values |= text_columns(values["text"], tokens)
    changed, changeable = (
        sum(counts[row] for row in own) if counts else 0
        for counts in (made.changed, made.changeable)
    )
    return pa.table(values, schema=CAPTIONS), {"changed": changed, "changeable": changeable}


def _row(columns: Columns, made: Derived, place: int) -> dict[str, Any]:
    row, text = made.rows[place], made.texts[place]
    before = columns.texts[row]
    told: dict[str, Any] = {
        "key": columns.keys[row],
        "sample_index": made.indices[place],
        "raw_text": before,
        "flags": [],
    }
    if isinstance(text, Unread):
        return told | {"status": FAILED, "reason": text.reason, "detail": text.detail or None}
    return told | {"status": OK, "text": text, "flags": [UNCHANGED] if text == before else []}
