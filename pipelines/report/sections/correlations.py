"""Correlations between the scores, as a table of numbers on coloured ground."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from curate.store.scans import sql_name
from pipelines.report import text
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.sections.scores import FIRST, NUMERIC

MOST = 14  # scores in the table
STEPS = 4  # shades a side
STRONG = 0.3  # |r| worth a word


@dataclass(frozen=True)
class Correlations:
    """Pearson's r of every two scores, over the samples that have both; None without spread."""

    names: list[str]
    values: dict[tuple[str, str], float | None]
    left_out: int

    def value(self, first: str, second: str) -> float | None:
        """r of two scores in either order."""
        found = self.values.get((first, second))
        return found if found is not None else self.values.get((second, first))

    def strongest(self, most: int = 5) -> list[tuple[str, str, float]]:
        """The pairs with the largest |r|, of those beyond STRONG."""
        known = [
            (a, b, r) for (a, b), r in self.values.items() if r is not None and abs(r) >= STRONG
        ]
        return sorted(known, key=lambda pair: -abs(pair[2]))[:most]


def compute(inputs: Inputs) -> Correlations | None:
    if inputs.dataset is None or not inputs.dataset.has_table("scores"):
        return None
    types = inputs.columns("scores")
    numeric = [name for name, kind in types.items() if kind.startswith(NUMERIC)]
    numeric.sort(key=lambda name: (name not in inputs.cuts, name not in FIRST))
    names = numeric[:MOST]
    if len(names) < 2:
        return None
    pairs = list(combinations(names, 2))
    columns = [f"{sql_name(name)}::DOUBLE" for name in names]
    finite = ", ".join(
        f"CASE WHEN isfinite({column}) THEN {column} END AS v{index}"
        for index, column in enumerate(columns)
    )
    place = {name: index for index, name in enumerate(names)}
    asked = ", ".join(
        f"corr(v{place[a]}, v{place[b]}) AS r{index}" for index, (a, b) in enumerate(pairs)
    )
    row = inputs.rows(f"SELECT {asked} FROM (SELECT {finite} FROM scores)")[0]
    values = {}
    for index, pair in enumerate(pairs):
        r = row[f"r{index}"]
        values[pair] = r if r is not None and r == r else None
    return Correlations(names, values, len(numeric) - len(names))


def shade(r: float | None) -> str:
    """The class of a cell: `up1` to `up4` for r above 0, `down1` to `down4` below, "" near 0."""
    if r is None or abs(r) < 0.05:
        return ""
    return f"{'up' if r > 0 else 'down'}{min(int(abs(r) * STEPS) + 1, STEPS)}"


def signed(r: float | None) -> str:
    """ "+0.43", "−0.10", "0.00" where it rounds to nothing, a dash where there is none."""
    if r is None:
        return text.MISSING
    return "0.00" if abs(r) < 0.005 else f"{r:+.2f}".replace("-", text.MINUS)


def draw(facts: Correlations, page: Page) -> Section:
    return page.section("correlations", "Correlations", facts=facts, shade=shade, signed=signed)
