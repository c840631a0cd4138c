"""Curation and captions against ground truth: precision and recall, with their counts."""

from __future__ import annotations

from typing import Any

from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section

Check = dict[str, Any]


def compute(inputs: Inputs) -> list[tuple[str, list[Check]]] | None:
    """The checks in groups, by what stands before the colon of their names."""
    if inputs.demo is None:
        return None
    groups: dict[str, list[Check]] = {}
    for row in inputs.parquet(inputs.demo / "checks.parquet"):
        group, _, name = row["check"].rpartition(": ")
        groups.setdefault(group, []).append({**row, "name": name})
    return list(groups.items()) or None


def draw(facts: list[tuple[str, list[Check]]], page: Page) -> Section:
    return page.section("checks", "Against ground truth", facts=facts)
