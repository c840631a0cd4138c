"""The funnel of a selection: what each rule removes, alone and in order."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.report.inputs import Inputs
from pipelines.report.page import Page, Section


@dataclass(frozen=True)
class Rule:
    """One rule of the selection."""

    rule: str
    removed_alone: int
    removed_in_order: int
    unscored: int  # of those removed in order: the rule could not be computed
    left: int


@dataclass(frozen=True)
class Funnel:
    """The facts of this section."""

    name: str
    where: str
    stored: int
    selected: int
    rules: list[Rule]
    others: list[tuple[str, int]]  # further selections of the dataset, with their sizes


def compute(inputs: Inputs) -> Funnel | None:
    if inputs.dataset is None or inputs.selection is None:
        return None
    record = inputs.selection_record
    others = [
        (name, inputs.dataset.selection_record(name)["selected"])
        for name in inputs.dataset.selections()
        if name != inputs.selection
    ]
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
    return Funnel(
        inputs.selection,
        str(record["where"]),
        record["stored"],
        inputs.selection_size,
        rules,
        others,
    )


def draw(facts: Funnel, page: Page) -> Section:
    return page.section("funnel", "The selection’s funnel", facts=facts)
