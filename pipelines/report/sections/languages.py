"""Languages of the alt texts, with how well each fits and how much of it the selection keeps."""

from __future__ import annotations

from dataclasses import dataclass

from curate.store.scans import sql_name
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section

COLUMNS = ("text_language", "language", "imported_language", "imported_lang")
MOST = 15


@dataclass(frozen=True)
class Language:
    """One language; `selected` samples are in the followed selection."""

    name: str
    samples: int
    similarity: float | None  # mean CLIP similarity
    selected: int


@dataclass(frozen=True)
class Languages:
    """The facts of this section."""

    column: str
    samples: int
    total: int  # languages
    shown: list[Language]
    others: int  # samples of the languages that are not shown
    unknown: int
    selection: str | None
    has_similarity: bool


def compute(inputs: Inputs) -> Languages | None:
    if inputs.dataset is None or not inputs.dataset.has_table("scores"):
        return None
    columns = inputs.columns("scores")
    column = next((name for name in COLUMNS if name in columns), None)
    if column is None:
        return None
    similarity = "clip_similarity" in columns
    mean = "avg(clip_similarity) FILTER (isfinite(clip_similarity))" if similarity else "NULL"
    chosen = "count(p.key)" if inputs.selection is not None else "0"
    join = " LEFT JOIN selected p ON p.key = scores.key" if inputs.selection is not None else ""
    rows = inputs.rows(
        f"SELECT {sql_name(column)} AS name, count(*) AS n, {mean} AS similarity, "
        f"{chosen} AS selected FROM scores{join} GROUP BY 1 ORDER BY n DESC, 1"
    )
    unknown = sum(row["n"] for row in rows if row["name"] is None)
    known = [row for row in rows if row["name"] is not None]
    if not known:
        return None
    return Languages(
        column,
        sum(row["n"] for row in rows),
        len(known),
        [
            Language(str(row["name"]), row["n"], row["similarity"], row["selected"])
            for row in known[:MOST]
        ],
        sum(row["n"] for row in known[MOST:]),
        unknown,
        inputs.selection,
        similarity,
    )


def draw(facts: Languages, page: Page) -> Section:
    return page.section("languages", "Languages", facts=facts)
