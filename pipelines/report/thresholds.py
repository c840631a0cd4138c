"""Where selections cut the scores: thresholds out of the rules of every selection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.report.charts import Threshold

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RULE = re.compile(
    rf"^\(*\s*\"?(\w+)\"?\s*\)*\s*(>=|<=|>|<)\s*"
    rf"(?:({_NUMBER})|CAST\('({_NUMBER})' AS \w+\))\s*\)*$"
)
_SIGNS = {">=": "≥", "<=": "≤"}


@dataclass(frozen=True)
class Cut:
    """A threshold on one column, and the selections that cut there.

    `sql` is true on the side that is kept.
    """

    column: str
    threshold: Threshold
    sql: str
    selections: tuple[str, ...] = ()


def thresholds(rules: Sequence[str]) -> dict[str, list[Threshold]]:
    """Column -> thresholds, of the rules that compare one column with one number."""
    found: dict[str, list[Threshold]] = {}
    for rule in rules:
        if (cut := cut_of(rule, rule)) is not None:
            found.setdefault(cut.column, []).append(cut.threshold)
    return found


def cuts(records: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Cut]]:
    """Column -> cuts by value, each with the selections that make it.

    Args:
        records: selection -> its record, the most important selection first.
    """
    found: dict[tuple[str, str], Cut] = {}
    for name, record in records.items():
        rules = [str(rule) for rule in record.get("rules", [])]
        for rule, sql in zip(rules, record.get("sql", rules), strict=True):
            cut = cut_of(rule, str(sql))
            if cut is None:
                continue
            known = found.get((cut.column, cut.threshold.text), cut)
            names = dict.fromkeys((*known.selections, name))
            found[cut.column, cut.threshold.text] = replace(known, selections=tuple(names))
    columns: dict[str, list[Cut]] = {}
    for cut in found.values():
        columns.setdefault(cut.column, []).append(cut)
    return columns


def cut_of(rule: str, sql: str) -> Cut | None:
    """The cut that a rule makes, where it compares one column with one number.

    Args:
        rule: as it was written, such as "top_fraction(aesthetic, 0.3)".
        sql: what it came to, such as "aesthetic >= CAST('5.5' AS FLOAT)".
    """
    match = _RULE.match(sql.strip())
    if match is None:
        return None
    column, sign, plain, cast = match.groups()
    value = float(plain or cast)
    shown = plain or f"{value:.4g}"
    share = re.search(rf"fraction\([^,]*,\s*({_NUMBER})\)", rule)
    text = f"{_SIGNS.get(sign, sign)} {shown}"
    if share is not None:
        text += f" (top {100 * float(share[1]):g}%)"
    return Cut(column, Threshold(value, sign.startswith(">"), text), sql)
