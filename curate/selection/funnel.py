"""What each rule of a selection removes: alone, and in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class RuleCount:
    """What one rule removed. Unscored rows (the rule is null) are counted apart from failed ones.

    `alone`: of all stored samples, as if it were the only rule. `in_order`: of the rows that the
    rules before it left. `left`: rows after it.
    """

    rule: str
    removed_alone: int
    unscored_alone: int
    removed_in_order: int
    unscored_in_order: int
    left: int


@dataclass(frozen=True)
class SelectionSummary(Summary):
    """A selection's counts. rows = stored + failed; stored = selected + all that rules removed."""

    name: str
    where: str
    rows: int
    stored: int
    selected: int
    funnel: tuple[RuleCount, ...]
    fresh: bool
    """False where the same selection had been stored before."""
    balanced: Mapping[str, Any] | None = None
    """The record of curate.selection.balance, where the selection is balanced."""

    def text(self) -> str:
        """The funnel as a table for people."""
        width = max([len(count.rule) for count in self.funnel] + [20])
        head = f"{'rule':<{width}}  {'alone':>9}  {'in order':>9}  {'unscored':>9}  {'left':>9}"
        lines = [
            f"Selection {self.name!r}: {self.selected:,} of {amount(self.stored, 'stored sample')}"
            f" ({amount(self.rows, 'row')} in the list)"
            f"{'' if self.fresh else ', as stored before'}",
            head,
            f"{'stored':<{width}}  {'':>9}  {'':>9}  {'':>9}  {self.stored:>9,}",
        ]
        lines += [
            f"{count.rule:<{width}}  {-count.removed_alone - count.unscored_alone:>9,}  "
            f"{-count.removed_in_order - count.unscored_in_order:>9,}  "
            f"{count.unscored_in_order:>9,}  {count.left:>9,}"
            for count in self.funnel
        ]
        return "\n".join([*lines, *self._groups()])

    def _groups(self, most: int = 8) -> list[str]:
        """The groups of a balanced selection, the largest first."""
        if self.balanced is None:
            return []
        shown = self.balanced["largest"][:most]
        left = self.balanced["groups"] - len(shown)
        return [
            f"balanced by {self.balanced['expression']}: "
            f"{amount(self.balanced['groups'], 'group')} of equal weight",
            *(
                f"  {'null' if group['group'] is None else group['group']:<24}  "
                f"{group['rows']:>9,} rows  weight {group['weight']:.4g}"
                for group in shown
            ),
            *([f"  and {amount(left, 'smaller group')}"] if left else []),
        ]


def rule_counts(
    connection: duckdb.DuckDBPyConnection, rules: Sequence[str], passed: str = "passed"
) -> tuple[list[RuleCount], int]:
    """Counts of each rule and of stored samples, in one scan of `passed`.

    Args:
        rules: their texts.
        passed: what stands behind FROM: a row a stored sample with the booleans r0, r1, ..., one a
            rule, null where a sample lacks a score.
    """
    parts = ["count(*)"]
    for index in range(len(rules)):
        before = all_of(index)
        parts += [
            f"count(*) FILTER (NOT r{index})",
            f"count(*) FILTER (r{index} IS NULL)",
            f"count(*) FILTER ({before} AND NOT r{index})",
            f"count(*) FILTER ({before} AND r{index} IS NULL)",
            f"count(*) FILTER ({all_of(index + 1)})",
        ]
    row = connection.execute(f"SELECT {', '.join(parts)} FROM {passed}").fetchall()[0]
    counts = [int(value) for value in row]
    funnel = [
        RuleCount(rule, *counts[1 + 5 * index : 6 + 5 * index]) for index, rule in enumerate(rules)
    ]
    return funnel, counts[0]


def all_of(count: int) -> str:
    """SQL: rules 0 to count - 1 are true."""
    return " AND ".join(["true", *(f"r{index}" for index in range(count))])


def summary_of(record: Mapping[str, Any], name: str) -> SelectionSummary:
    """The summary of a stored selection's record (`Dataset.selection_record`)."""
    funnel = tuple(RuleCount(**count) for count in record["funnel"])
    return SelectionSummary(
        name,
        record["where"],
        record["rows"],
        record["stored"],
        record["selected"],
        funnel,
        False,
        record.get("balance"),
    )
