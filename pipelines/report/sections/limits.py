"""What this run cannot show, in plain sentences that the run itself gave."""

from __future__ import annotations

from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section


def compute(inputs: Inputs) -> list[str] | None:
    return [str(line) for line in inputs.run_record.get("limits", [])] or None


def draw(facts: list[str], page: Page) -> Section:
    return page.section("limits", "What this run cannot show", facts=facts)
