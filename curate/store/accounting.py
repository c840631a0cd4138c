"""Rows in = stored + failed by reason: no row of the input list may get lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from curate.base.files import read_json
from curate.base.reasons import Reason, ReasonClass
from curate.base.telling.words import amount
from curate.store.contract import STORED
from curate.store.dataset import Dataset


def accounting(dataset: Dataset) -> dict[str, Any]:
    """Count the rows of a dataset.

    Returns:
        rows (of the input list), stored, failed, pending (shards not downloaded yet), reasons
        (reason -> rows, the most frequent first), classes (class of reason -> rows), errors and
        policy (the rows of `failed`, apart: what went wrong, and what was not wanted), retryable
        (rows that --retry-failed takes up), balanced (whether rows = stored + failed + pending),
        captions and captioned (texts that came, and the rows they belong to; None where no row has
        several) and left_out (why -> files of the input that are no rows).
    """
    rows, pending = 0, 0
    for shard in dataset.shards():
        in_shard = pq.read_metadata(dataset.input_path(shard)).num_rows
        rows += in_shard
        pending += 0 if dataset.has_shard("samples", shard) else in_shard
    with dataset.connect() as connection:
        counts = connection.execute(
            "SELECT status, reason, count(*) FROM samples GROUP BY ALL ORDER BY 3 DESC, 2"
        ).fetchall()
    stored = sum(count for status, _, count in counts if status == STORED)
    reasons = {reason: count for status, reason, count in counts if status != STORED}
    classes: dict[str, int] = {}
    for reason, count in reasons.items():
        kind = Reason.named(reason).reason_class.value
        classes[kind] = classes.get(kind, 0) + count
    failed = sum(reasons.values())
    lists = [read_json(path) for path in dataset.list_records()]
    several = any(one.get("captions") is not None for one in lists)
    left_out: Counter[str] = Counter()
    for one in lists:
        left_out.update(one.get("left_out", {}))
    return {
        "rows": rows,
        "stored": stored,
        "failed": failed,
        "pending": pending,
        "reasons": reasons,
        "classes": classes,
        "errors": failed - classes.get(ReasonClass.POLICY.value, 0),
        "policy": classes.get(ReasonClass.POLICY.value, 0),
        "retryable": classes.get(ReasonClass.MAY_PASS.value, 0),
        "balanced": rows == stored + failed + pending,
        "captions": sum(_texts_of(one, "captions") for one in lists) if several else None,
        "captioned": sum(_texts_of(one, "captioned") for one in lists) if several else None,
        "left_out": dict(left_out),
    }


def _texts_of(intake: Mapping[str, Any], name: str) -> int:
    """Texts of a list, or rows that they belong to; a list without several tells neither."""
    if intake.get(name) is not None:
        return int(intake[name])
    return int(intake["rows"] - intake["without_text"] - sum(intake["broken"].values()))


def accounting_line(counts: Mapping[str, Any]) -> str:
    """One line: "100 rows in = 90 stored + 8 errors (http_404 6, dns 2) + 2 policy (aspect 2)"."""
    line = f"{amount(counts['rows'], 'row')} in = {counts['stored']:,} stored"
    for name, told, classes in (
        ("errors", "error", (ReasonClass.MAY_PASS, ReasonClass.PERMANENT)),
        ("policy", "policy", (ReasonClass.POLICY,)),
    ):
        shown = [
            f"{reason} {rows:,}"
            for reason, rows in counts["reasons"].items()
            if Reason.named(reason).reason_class in classes
        ]
        line += f" + {amount(counts[name], told, name)}"
        line += f" ({', '.join(shown)})" if shown else ""
    if counts["pending"]:
        line += f" + {counts['pending']:,} not downloaded yet"
    if not counts["balanced"]:
        line += "; THESE DO NOT ADD UP"
    if counts["retryable"]:
        again = "it" if counts["retryable"] == 1 else "them"
        line += f"; {counts['retryable']:,} may pass, --retry-failed tries {again} again"
    if counts["captions"]:
        of = amount(counts["captioned"], "picture")
        line += f"; {amount(counts['captions'], 'caption')} of {of}"
    return line
