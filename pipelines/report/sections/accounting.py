"""Rows in = stored + failed: where every row of the input list went."""

from __future__ import annotations

from dataclasses import dataclass

from curate.reasons import Reason as KnownReason
from pipelines.report.inputs import Inputs
from pipelines.report.page import Page, Section

HOSTS = 12

# The authority of a URL without user name and port; what has none counts as "(no host)".
HOST_SQL = (
    "coalesce(nullif(lower(regexp_extract(url, "
    "'^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?(\\[[^\\]]*\\]|[^/?#:]*)', 1)), ''), '(no host)')"
)


@dataclass(frozen=True)
class Reason:
    """Rows that failed for one reason, with an example of the error's own words."""

    reason: str
    meaning: str
    kind: str  # error that may pass, permanent error, or policy
    rows: int
    share: float  # of all failed rows
    example: str | None


@dataclass(frozen=True)
class Host:
    """Rows of one host."""

    host: str
    rows: int
    failed: int
    main_reason: str | None


@dataclass(frozen=True)
class Accounting:
    """The facts of this section."""

    rows: int
    stored: int
    failed: int
    unaccounted: int  # neither stored nor failed: must be 0
    reasons: list[Reason]
    hosts: list[Host]
    host_count: int


def compute(inputs: Inputs) -> Accounting | None:
    if inputs.dataset is None:
        return None
    counts = {
        row["status"]: row["n"]
        for row in inputs.rows("SELECT status, count(*) AS n FROM samples GROUP BY ALL")
    }
    total = sum(counts.values())
    stored, failed = counts.get("stored", 0), counts.get("failed", 0)
    reasons = inputs.rows(
        "SELECT coalesce(reason, '(none given)') AS reason, count(*) AS n, min(detail) AS example "
        "FROM samples WHERE status = 'failed' GROUP BY 1 ORDER BY n DESC, 1"
    )
    hosts = inputs.rows(
        f"SELECT {HOST_SQL} AS host, count(*) AS n, "
        "count(*) FILTER (status = 'failed') AS failed, "
        "mode(reason) FILTER (status = 'failed') AS main_reason "
        f"FROM samples GROUP BY 1 ORDER BY failed DESC, n DESC, 1 LIMIT {HOSTS}"
    )
    host_count = inputs.rows(f"SELECT count(DISTINCT {HOST_SQL}) AS n FROM samples")[0]["n"]
    return Accounting(
        rows=total,
        stored=stored,
        failed=failed,
        unaccounted=total - stored - failed,
        reasons=[
            Reason(
                row["reason"],
                *_explained(row["reason"]),
                row["n"],
                row["n"] / max(failed, 1),
                row["example"],
            )
            for row in reasons
        ],
        hosts=[Host(row["host"], row["n"], row["failed"], row["main_reason"]) for row in hosts],
        host_count=host_count,
    )


def _explained(reason: str) -> tuple[str, str]:
    for known in KnownReason:
        if known.value == reason:
            return known.meaning, known.reason_class.value
    return "", ""


def draw(facts: Accounting, page: Page) -> Section:
    return page.section("accounting", "Every row accounted for", facts=facts)
