"""Sample grids: what each arm draws for the same prompts from the same noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.store.scans import parquet_scan
from pipelines.report import metrics
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture, thumbnail
from pipelines.report.sql import identifier

SEEDS = 3
# Pictures in all grids together; more arms or seeds mean fewer prompts.
PICTURES = 240


@dataclass(frozen=True)
class Drawn:
    """A generated picture and how much of its prompt is right (0..1), where it was judged."""

    picture: Picture
    score: float | None


@dataclass(frozen=True)
class Prompt:
    """One prompt: its target and, an arm a row, one picture a training seed."""

    prompt: str
    target: Picture | None
    arms: list[tuple[str, list[Drawn]]]


@dataclass(frozen=True)
class Grids:
    """The facts of this section: prompt form -> prompts."""

    metric: str
    seeds: list[int]
    forms: list[tuple[str, list[Prompt]]]


def compute(inputs: Inputs) -> Grids | None:
    path = inputs.result_path("images")
    if path is None:
        return None
    source = parquet_scan(path)
    columns = inputs.columns(source)
    if "png" not in columns:
        return None
    metric = str(inputs.run_record.get("primary_metric") or "")
    score = identifier(metric) if metric in columns else "NULL"
    target = "target_png" if "target_png" in columns else "NULL"
    drawn = inputs.rows(
        f"SELECT DISTINCT prompt_form, prompt_index FROM {source} "
        "WHERE png IS NOT NULL ORDER BY ALL"
    )
    seeds = [
        row["seed"]
        for row in inputs.rows(
            f"SELECT DISTINCT seed FROM {source} WHERE png IS NOT NULL ORDER BY 1 LIMIT {SEEDS}"
        )
    ]
    forms = in_order([row["prompt_form"] for row in drawn])
    if not forms or not seeds:
        return None
    each = len(inputs.arms) * len(seeds) + 1
    most = max(PICTURES // (each * len(forms)), 2)
    shown = []
    for form in forms:
        # The first prompts, not the best ones: a grid must not flatter an arm.
        indices = [row["prompt_index"] for row in drawn if row["prompt_form"] == form][:most]
        rows = inputs.rows(
            f"SELECT prompt_index, prompt, arm, seed, png, {target} AS target_png, "
            f"{score} AS score FROM {source} WHERE prompt_form = ? "
            "AND list_contains(?, prompt_index) AND list_contains(?, seed) AND png IS NOT NULL "
            "ORDER BY prompt_index, arm, seed",
            [form, indices, seeds],
        )
        prompts = [
            _prompt([row for row in rows if row["prompt_index"] == index], inputs.arms)
            for index in indices
        ]
        shown.append((form, prompts))
    return Grids(metric, seeds, shown)


def in_order(names: list[str]) -> list[str]:
    """The known prompt forms in the page's order, then the others as they come."""
    order = ["descriptive", "short", "upsampled"]
    given = list(dict.fromkeys(names))
    return [name for name in order if name in given] + [n for n in given if n not in order]


def _prompt(rows: list[dict[str, Any]], arms: list[str]) -> Prompt:
    prompt = rows[0]["prompt"]
    target = next((row["target_png"] for row in rows if row["target_png"]), None)
    by_arm = []
    for arm in arms:
        drawn = [
            Drawn(
                thumbnail(row["png"], f"drawn by the arm {arm}, seed {row['seed']}: {prompt}", 64),
                row["score"],
            )
            for row in rows
            if row["arm"] == arm
        ]
        if drawn:
            by_arm.append((arm, drawn))
    picture = thumbnail(target, f"the scene behind the prompt: {prompt}", 96) if target else None
    return Prompt(prompt, picture, by_arm)


def draw(facts: Grids, page: Page) -> Section:
    return page.section(
        "grids",
        "Same prompt, same noise",
        facts=facts,
        metric=metrics.metric(facts.metric),
        value=metrics.value,
    )
