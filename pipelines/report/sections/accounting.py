"""Rows in = stored + failed: where every row of the input list went, errors and policy apart."""

from __future__ import annotations

from dataclasses import dataclass

from curate.base.reasons import Reason as KnownReason
from curate.base.reasons import ReasonClass
from pipelines.report.data import HOST_SQL, NO_HOST, Inputs
from pipelines.report.page import Page, Section

__all__ = ["HOST_SQL", "compute", "draw"]

HOSTS = 12
_POLICY = [reason.value for reason in KnownReason if reason.reason_class is ReasonClass.POLICY]


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
class Kind:
    """All reasons of one class, with the class in plain words."""

    title: str
    rows: int
    reasons: list[Reason]


@dataclass(frozen=True)
class Host:
    """Rows of one host; `errors` failed by themselves, `refused` were not wanted (policy)."""

    host: str
    rows: int
    errors: int
    refused: int
    main_reason: str | None

    @property
    def failed(self) -> int:
        """Rows that are not stored."""
        return self.errors + self.refused


@dataclass(frozen=True)
class Accounting:
    """The facts of this section."""

    rows: int
    stored: int
    failed: int
    unaccounted: int  # neither stored nor failed: must be 0
    reasons: list[Reason]
    kinds: list[Kind]
    hosts: list[Host]  # with failures
    host_count: int


_TITLES = {
    ReasonClass.MAY_PASS.value: "Errors that may pass",
    ReasonClass.PERMANENT.value: "Errors that stay",
    ReasonClass.POLICY.value: "Policy: the picture was there and was not wanted",
    "": "Other reasons",
}


def compute(inputs: Inputs) -> Accounting | None:
    if inputs.dataset is None:
        return None
    inputs.need_hosts()
    counts = {
        row["status"]: row["n"]
        for row in inputs.rows("SELECT status, sum(n)::BIGINT AS n FROM _hosts GROUP BY ALL")
    }
    total = sum(counts.values())
    stored, failed = counts.get("stored", 0), counts.get("failed", 0)
    rows = inputs.rows(
        "SELECT coalesce(reason, '(none given)') AS reason, count(*) AS n, min(detail) AS example "
        "FROM samples WHERE status = 'failed' GROUP BY 1 ORDER BY n DESC, 1"
    )
    reasons = [
        Reason(
            row["reason"],
            *_explained(row["reason"]),
            row["n"],
            row["n"] / max(failed, 1),
            row["example"],
        )
        for row in rows
    ]
    failed_by = "sum(n) FILTER (status = 'failed' AND"
    policy = f"reason IN ({', '.join(repr(reason) for reason in _POLICY)})"
    hosts = inputs.rows(
        "WITH counted AS (SELECT host, sum(n)::BIGINT AS n, "
        f"coalesce({failed_by} NOT coalesce({policy}, false)), 0)::BIGINT AS errors, "
        f"coalesce({failed_by} {policy}), 0)::BIGINT AS refused, "
        "arg_max(reason, n) FILTER (status = 'failed') AS main_reason FROM _hosts GROUP BY 1) "
        "SELECT * FROM counted WHERE errors + refused > 0 "
        f"ORDER BY errors + refused DESC, n DESC, host LIMIT {HOSTS}"
    )
    if all(row["host"] == NO_HOST for row in hosts):  # files of a folder
        hosts = []
    return Accounting(
        rows=total,
        stored=stored,
        failed=failed,
        unaccounted=total - stored - failed,
        reasons=reasons,
        kinds=_kinds(reasons),
        hosts=[
            Host(row["host"], row["n"], row["errors"], row["refused"], row["main_reason"])
            for row in hosts
        ],
        host_count=inputs.rows("SELECT count(DISTINCT host) AS n FROM _hosts")[0]["n"],
    )


def _kinds(reasons: list[Reason]) -> list[Kind]:
    found = []
    for kind, title in _TITLES.items():
        mine = [reason for reason in reasons if reason.kind == kind]
        if mine:
            found.append(Kind(title, sum(reason.rows for reason in mine), mine))
    return found


def _explained(reason: str) -> tuple[str, str]:
    for known in KnownReason:
        if known.value == reason:
            return known.meaning, known.reason_class.value
    return "", ""


def draw(facts: Accounting, page: Page) -> Section:
    return page.section("accounting", "Every row accounted for", facts=facts)
