"""The funnel of every selection: what each rule removes, alone and in order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.store.sample_view import tables_version
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section


@dataclass(frozen=True)
class Rule:
    """One rule of a selection."""

    rule: str
    removed_alone: int
    removed_in_order: int
    unscored: int  # of those removed in order: the rule could not be computed
    left: int


@dataclass(frozen=True)
class Funnel:
    """One selection. `came_to`: fractions with the thresholds that they came to."""

    name: str
    where: str
    stored: int
    selected: int
    rules: list[Rule]
    source: str | None  # of its preset
    made_at: str | None
    current: bool  # made from the tables as they are
    came_to: list[tuple[str, str]]


@dataclass(frozen=True)
class Funnels:
    """The facts of this section: the followed selection first."""

    shown: list[Funnel]

    # What the page said when there was one selection, for whoever asks about the followed one.
    @property
    def rules(self) -> list[Rule]:
        """The followed selection's rules."""
        return self.shown[0].rules

    @property
    def stored(self) -> int:
        """Stored samples when the followed selection was made."""
        return self.shown[0].stored

    @property
    def selected(self) -> int:
        """Samples in the followed selection."""
        return self.shown[0].selected


def compute(inputs: Inputs) -> Funnels | None:
    if inputs.dataset is None or inputs.selection is None:
        return None
    version = tables_version(inputs.dataset)
    shown = [
        _funnel(name, record, version)
        for name, record in inputs.selection_records.items()
        if "funnel" in record  # `caplab select` writes one; a list of keys of one's own has none
    ]
    return Funnels(shown) if shown else None


def _funnel(name: str, record: Mapping[str, Any], version: str) -> Funnel:
    rules = [
        Rule(
            row["rule"],
            row["removed_alone"] + row["unscored_alone"],
            row["removed_in_order"] + row["unscored_in_order"],
            row["unscored_in_order"],
            row["left"],
        )
        for row in record["funnel"]
    ]
    came_to = [
        (f"{part['expression']} ≥ {part['threshold']:.4g}", f"{100 * part['fraction']:g}%")
        for part in record.get("fractions", [])
        if part["threshold"] is not None
    ]
    return Funnel(
        name,
        str(record["where"]),
        record["stored"],
        record["selected"],
        rules,
        (record.get("preset") or {}).get("source"),
        _minute(record.get("created_at")),
        record.get("tables_version") == version,
        came_to,
    )


def _minute(moment: str | None) -> str | None:
    """ "2026-11-21T10:19:41+00:00" -> "2026-11-21 10:19 UTC"; another form stays as it is."""
    if moment is None:
        return None
    return re.sub(r"^(\S{10})T(\d\d:\d\d):\d\d\+00:00$", r"\1 \2 UTC", moment)


def draw(facts: Funnels, page: Page) -> Section:
    title = "The selection’s funnel" if len(facts.shown) == 1 else "The selections’ funnels"
    return page.section("funnel", title, facts=facts)
