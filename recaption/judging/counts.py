"""Exact counts over every caption of a set: rows, reasons, flags, lengths, similarities."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from curate.store.dataset import Dataset
from recaption.captioning.ask import OK
from recaption.judging.caption_sets import SIMILARITIES, CaptionSet, add_view

WINDOW = 77
"""Tokens that CLIP reads, start and end included; many trainers give T5 as many."""

LENGTHS = ("words", "clip_tokens", "t5_tokens", "output_tokens")
# Similarities are counted in steps of a thousandth: far below what a captioner moves them by.
_STEP = 1000


@dataclass(frozen=True)
class Distribution:
    """How often each value occurs; `values` (V,) ascending float64, `counts` (V,) int64."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean; nan where none was counted."""
        return float(self.values @ self.counts / self.total) if self.total else float("nan")

    def quantile(self, share: float) -> float:
        """The least value with at least `share` of all at or below it; nan where there is none."""
        if not self.total:
            return float("nan")
        place = np.searchsorted(np.cumsum(self.counts), share * self.total - 1e-9)
        return float(self.values[min(int(place), len(self.values) - 1)])

    def share_above(self, limit: float) -> float:
        """Share of the values above `limit`; nan where there is none."""
        above = int(self.counts[self.values > limit].sum())
        return above / self.total if self.total else float("nan")


@dataclass(frozen=True)
class SetCounts:
    """What holds for every row of a set, not for a sample.

    Attributes:
        rows, accepted, rejected, failed: captions; rows is the sum of the others.
        retried: rows that took more than one try.
        cut: rows that ended at the token limit.
        reasons: reason -> rows not accepted, the most frequent first.
        flags: gate -> rows that it spoke on, accepted ones included.
        distributions: column -> its values over accepted captions; empty where nobody filled it.
    """

    rows: int
    accepted: int
    rejected: int
    failed: int
    retried: int
    cut: int
    reasons: dict[str, int]
    flags: dict[str, int]
    distributions: dict[str, Distribution]


def count_set(dataset: Dataset, one: CaptionSet) -> SetCounts:
    """Count a set with a few scans of its table; memory does not grow with the rows."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    add_view(connection, dataset, one.source, "source_rows")
    add_view(connection, dataset, one.source, "scored_rows", scored=True)

    def rows(select: str, tail: str = "", view: str = "source_rows") -> list[tuple[object, ...]]:
        sql = f"SELECT {select} FROM {view} WHERE kind = $kind {tail}"
        found: list[tuple[object, ...]] = connection.execute(sql, {"kind": one.kind}).fetchall()
        return found

    ((total, accepted, rejected, failed, retried, cut),) = rows(
        f"count(*), count(*) FILTER (status = '{OK}'), count(*) FILTER (status = 'rejected'), "
        "count(*) FILTER (status = 'failed'), count(*) FILTER (attempts > 1), "
        "count(*) FILTER (finish_reason = 'length')"
    )
    reasons = rows(
        "coalesce(reason, '(none given)'), count(*)",
        f"AND status <> '{OK}' GROUP BY 1 ORDER BY 2 DESC, 1",
    )
    flags = connection.execute(
        "SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM source_rows "
        "WHERE kind = $kind) GROUP BY 1 ORDER BY 2 DESC, 1",
        {"kind": one.kind},
    ).fetchall()
    distributions = {}
    for name in (*LENGTHS, *SIMILARITIES):
        step = _STEP if name in SIMILARITIES else 1
        counted = rows(
            f"CAST(round({name} * {step}) AS BIGINT), count(*)",
            f"AND status = '{OK}' AND isfinite({name}::DOUBLE) GROUP BY 1 ORDER BY 1",
            "scored_rows" if name in SIMILARITIES else "source_rows",
        )
        table = np.array(counted, np.int64).reshape(-1, 2)
        distributions[name] = Distribution(table[:, 0] / step, table[:, 1])
    return SetCounts(
        rows=int(str(total)),
        accepted=int(str(accepted)),
        rejected=int(str(rejected)),
        failed=int(str(failed)),
        retried=int(str(retried)),
        cut=int(str(cut)),
        reasons={str(name): int(str(n)) for name, n in reasons},
        flags={str(name): int(n) for name, n in flags},
        distributions=distributions,
    )
