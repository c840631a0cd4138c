"""What the captions did: the declared answers in words, then by prompt form, wording and group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report import metrics, text
from pipelines.report.charts import Estimate, Group, dot_chart
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.study import ALL, Row, Study, asked, difference_of, of_group, reach, study

# Tables of tests that are declared with the study, and what stands above their sentences.
DECLARED = {
    "contrasts": "Contrasts",
    "equivalence": "No downside, within a margin",
    "interactions": "Training captions by prompt form",
    "trends": "Trends over a dose",
}


@dataclass(frozen=True)
class Answer:
    """One declared test in words."""

    sentence: str
    claimed: bool


@dataclass(frozen=True)
class Effects:
    """The facts of this section.

    `answers`: heading -> the tests that were declared before the run. `by_prompt`: prompts in
    words -> differences of the metric that decides; `by_group` likewise, within its form.
    `lost`: texts that the models did not read, as pipelines.ablation.finished.texts has them.
    """

    study: Study
    blends: list[tuple[str, str]]
    answers: dict[str, list[Answer]]
    by_prompt: list[tuple[str, list[Row]]]
    by_group: list[tuple[str, list[Row]]]
    lost: Mapping[str, Any]


def compute(inputs: Inputs) -> Effects | None:
    found = study(inputs)
    if found is None:
        return None
    answers = {
        heading: [
            Answer(row["verdict"], bool(row["claimed"]))
            for row in inputs.results(table)
            if row.get("declared", True)
        ]
        for table, heading in DECLARED.items()
    }
    by_prompt = [
        (asked(form, wording), _rows(found, form, wording))
        for form, wordings in found.forms.items()
        for wording in wordings
    ]
    by_group = [
        (of_group(group), _rows(found, found.form, found.wording, group)) for group in found.groups
    ]
    return Effects(
        study=found,
        blends=[(arm["name"], _said(arm)) for arm in inputs.run_record.get("arms", [])],
        answers={heading: tests for heading, tests in answers.items() if tests},
        by_prompt=[(name, rows) for name, rows in by_prompt if rows],
        by_group=[(name, rows) for name, rows in by_group if rows],
        lost=inputs.run_record.get("texts_lost") or {},
    )


def _rows(found: Study, form: str, wording: str, group: str = ALL) -> list[Row]:
    rows = [found.contrast(pair, form, wording, group) for pair in found.pairs()]
    return [row for row in rows if row is not None]


def _said(arm: Mapping[str, Any]) -> str:
    """What an arm was trained on: "descriptive 95%, alt 5%; selection clean"."""
    parts = [", ".join(f"{kind} {share:.0%}" for kind, share in arm["captions"].items())]
    if arm.get("missing_captions") == "fallback":
        parts[0] += " (falls back where one is missing)"
    for name in ("selection", "seeds", "condition_on", "ask"):
        if value := arm.get(name):
            parts.append(f"{text.words(name)} {_plain(value)}")
    return "; ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value) if isinstance(value, str) else ", ".join(map(str, value))


def draw(facts: Effects, page: Page) -> Section:
    metric = facts.study.metric
    return page.section(
        "effects",
        "What the captions did",
        facts=facts,
        metric=metrics.metric(metric),
        prompt_chart=_chart(facts.by_prompt, metric, page),
        group_chart=_chart(facts.by_group, metric, page),
        asked=asked(facts.study.form, facts.study.wording),
    )


def _chart(panels: Sequence[tuple[str, list[Row]]], metric: str, page: Page) -> Markup | None:
    groups = [Group(name, [difference_of(row) for row in rows]) for name, rows in panels]
    if not groups:
        return None
    every: list[Estimate] = [row for group in groups for row in group.rows]
    share = metrics.metric(metric).unit == "share"
    said = "; ".join(f"{g.heading}: {', '.join(r.title for r in g.rows)}" for g in groups)
    return dot_chart(
        groups,
        page.palette,
        f"difference, {'percentage points' if share else metrics.label(metric)}",
        reach(every, share),
        (lambda v: text.tick(100 * v)) if share else text.tick,
        f"Differences in {metrics.label(metric)}. {said}.",
        zero=True,
    )
