"""Which sites the samples come from: registered domains by size, success and score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.report import text
from pipelines.report.data import NO_HOST, SCORES, Inputs
from pipelines.report.page import Page, Section

LARGEST, EXTREME = 15, 6
ENOUGH = 50  # rows of a domain before its success or mean is worth a place


@dataclass(frozen=True)
class Domain:
    """One registered domain. `means`: score -> mean over its scored samples."""

    name: str
    hosts: int
    rows: int
    stored: int
    means: dict[str, float | None]


@dataclass(frozen=True)
class Table:
    """Domains in an order that the title tells."""

    title: str
    domains: list[Domain]


@dataclass(frozen=True)
class Domains:
    """The facts of this section."""

    total: int
    hosts: int
    dead: int  # domains of which nothing was stored
    rows: int
    in_ten: int  # rows of the ten largest domains
    scores: list[str]
    tables: list[Table]


def compute(inputs: Inputs) -> Domains | None:
    if inputs.dataset is None:
        return None
    inputs.need_hosts()
    whole = inputs.rows(
        "WITH d AS (SELECT domain, sum(n) AS rows, coalesce(sum(n) FILTER (status = 'stored'), 0) "
        "AS stored FROM _hosts GROUP BY 1) SELECT count(*) AS total, "
        "count(*) FILTER (stored = 0) AS dead, coalesce(sum(rows), 0)::BIGINT AS rows, "
        f"count(*) FILTER (domain <> '{NO_HOST}') AS named, "
        "(SELECT coalesce(sum(rows), 0)::BIGINT FROM (SELECT rows FROM d ORDER BY rows DESC "
        "LIMIT 10)) AS in_ten, (SELECT count(DISTINCT host) FROM _hosts) AS hosts FROM d"
    )[0]
    if not whole["named"]:  # files of a folder come from nowhere
        return None
    scores = [name for name in SCORES if name in inputs.columns("scores")]
    tables = [Table("The largest", _domains(inputs, scores, "rows DESC", LARGEST))]
    enough = f"rows >= {ENOUGH}"
    if whole["total"] > LARGEST:
        low = _domains(inputs, scores, "stored / rows, rows DESC", EXTREME, enough)
        tables.append(Table(f"Lowest success, of those with {ENOUGH} rows or more", low))
        for name in scores:
            for order, which in (("DESC", "Highest"), ("", "Lowest")):
                found = _domains(
                    inputs, scores, f"mean_{name} {order}", EXTREME,
                    f"stored >= {ENOUGH} AND mean_{name} IS NOT NULL",
                )  # fmt: skip
                title = f"{which} mean {text.words(name)}, of those with {ENOUGH} stored or more"
                tables.append(Table(title, found))
    return Domains(
        whole["total"], whole["hosts"], whole["dead"], whole["rows"], whole["in_ten"], scores,
        [table for table in tables if table.domains],
    )  # fmt: skip


def _domains(
    inputs: Inputs, scores: list[str], order: str, most: int, where: str = "true"
) -> list[Domain]:
    means = "".join(
        f", sum(sum_{name}) / nullif(sum(count_{name}), 0) AS mean_{name}" for name in scores
    )
    rows: list[dict[str, Any]] = inputs.rows(
        "WITH d AS (SELECT domain, count(DISTINCT host) AS hosts, sum(n)::BIGINT AS rows, "
        f"coalesce(sum(n) FILTER (status = 'stored'), 0)::BIGINT AS stored{means} "
        f"FROM _hosts GROUP BY 1) SELECT * FROM d WHERE {where} "
        f"ORDER BY {order}, domain LIMIT {most}"
    )
    return [
        Domain(
            row["domain"],
            row["hosts"],
            row["rows"],
            row["stored"],
            {name: row[f"mean_{name}"] for name in scores},
        )
        for row in rows
    ]


def draw(facts: Domains, page: Page) -> Section:
    return page.section("domains", "Domains", facts=facts)
