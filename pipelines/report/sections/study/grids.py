"""Sample grids: what each arm draws for the same prompts from the same noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.report import metrics
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture, thumbnail
from pipelines.report.study import shown, study

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
    found = study(inputs)
    drawn = shown(inputs, found) if found is not None else []
    if found is None or not drawn:
        return None
    seeds = sorted({row["seed"] for row in drawn})[:SEEDS]
    grids: list[tuple[str, list[Prompt]]] = []
    forms = [form for form in found.forms if any(row["form"] == form for row in drawn)]
    each = len(found.arms) * len(seeds) + 1
    most = max(PICTURES // (each * len(forms)), 2)
    for form in forms:
        rows = [row for row in drawn if row["form"] == form and row["seed"] in seeds]
        # The first prompts, not the best ones: a grid must not flatter an arm.
        prompts = list(dict.fromkeys(row["prompt_id"] for row in rows))[:most]
        grids.append(
            (form, [_prompt([r for r in rows if r["prompt_id"] == p], found.arms) for p in prompts])
        )
    return Grids(found.metric, seeds, grids)


def _prompt(rows: list[dict[str, Any]], arms: list[str]) -> Prompt:
    prompt = rows[0]["prompt"]
    target = next((row["target_webp"] for row in rows if row["target_webp"]), None)
    by_arm = []
    for arm in arms:
        drawn = [
            Drawn(
                thumbnail(row["webp"], f"drawn by the arm {arm}, seed {row['seed']}: {prompt}", 64),
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
