"""Seconds and peak memory of every stage."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section


@dataclass(frozen=True)
class StageCost:
    """What a stage cost; `share` of all stages' seconds."""

    stage: str
    seconds: float
    share: float
    peak_memory_bytes: float | None


def compute(inputs: Inputs) -> list[StageCost] | None:
    if inputs.demo is None:
        return None
    rows = inputs.parquet(inputs.demo / "stages.parquet")
    total = sum(row["seconds"] for row in rows) or 1.0
    return [
        StageCost(row["stage"], row["seconds"], row["seconds"] / total, row["peak_memory_bytes"])
        for row in rows
    ] or None


def draw(facts: list[StageCost], page: Page) -> Section:
    total = sum(cost.seconds for cost in facts)
    return page.section("stages", "Time and memory", facts=facts, total=total)
