"""A study's tables, looked up by what they are about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.store.scans import parquet_scan, sql_name
from pipelines.report import metrics, text
from pipelines.report.charts import Estimate
from pipelines.report.data import Inputs

Row = Mapping[str, Any]
ALL = "all"
FORMS = ("descriptive", "short", "upsampled", "alt")
WORDINGS = (ALL, "captioner", "varied", "place-first", "typed")


@dataclass(frozen=True)
class Study:
    """The facts that several sections share.

    `forms`: prompt form -> its wordings, "all" first where there are several. `cells`: rows of
    arms.parquet by (arm, form, wording, group, metric).
    """

    arms: list[str]
    forms: dict[str, list[str]]
    metric: str
    form: str
    wording: str
    cells: dict[tuple[str, str, str, str, str], Row]
    contrasts: Sequence[Row]
    seeds: int

    @property
    def metrics(self) -> list[str]:
        """All metrics, the one that decides first."""
        named = metrics.ordered(metric for *_, metric in self.cells)
        return [self.metric, *(name for name in named if name != self.metric)]

    @property
    def groups(self) -> list[str]:
        """Groups of prompts beside "all": pairs seen and held out, then categories."""
        found = dict.fromkeys(group for *_, group, _ in self.cells if group != ALL)
        return sorted(found, key=lambda group: (group.startswith("category:"), group))

    def declared(self) -> list[Row]:
        """The contrasts that were declared before the run, in their order."""
        return [row for row in self.contrasts if row["declared"]]

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of arms that were declared, or all where none is in the table."""
        rows = self.declared() or list(self.contrasts)
        return list(dict.fromkeys((row["arm_a"], row["arm_b"]) for row in rows))

    def contrast(
        self, pair: tuple[str, str], form: str, wording: str, group: str = ALL
    ) -> Row | None:
        """The row of one pair on the metric that decides."""
        wanted = (*pair, form, wording, group, self.metric)
        names = ("arm_a", "arm_b", "form", "wording", "group", "metric")
        return next((r for r in self.contrasts if tuple(r[n] for n in names) == wanted), None)


def study(inputs: Inputs) -> Study | None:
    """The study's tables; None where there is no study."""
    rows = inputs.results("arms")
    if not rows:
        return None
    forms: dict[str, list[str]] = {}
    for form in _in_order((row["form"] for row in rows), FORMS):
        worded = _in_order((r["wording"] for r in rows if r["form"] == form), WORDINGS)
        # With one wording, "all" would say the same twice.
        forms[form] = worded if len(worded) != 2 else worded[:1]
    primary = inputs.run_record.get("primary") or {}
    names = ("arm", "form", "wording", "group", "metric")
    return Study(
        arms=[arm for arm in inputs.arms if any(row["arm"] == arm for row in rows)],
        forms=forms,
        metric=str(primary.get("metric", rows[0]["metric"])),
        form=str(primary.get("form", rows[0]["form"])),
        wording=str(primary.get("wording", ALL)),
        cells={
            (row[names[0]], row[names[1]], row[names[2]], row[names[3]], row[names[4]]): row
            for row in rows
        },
        contrasts=inputs.results("contrasts"),
        seeds=max(row["seeds"] for row in rows),
    )


def _in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The known names in the page's order, then the others as they come."""
    given, order = list(dict.fromkeys(names)), list(known)
    return [name for name in order if name in given] + [n for n in given if n not in order]


def shown(inputs: Inputs, found: Study) -> list[dict[str, Any]]:
    """The pictures that a study keeps to be shown, in its order, with their prompt and score.

    Columns of shown.parquet, and form, wording, prompt and score (of the metric that decides).
    """
    rows, images = inputs.results("shown"), inputs.result_path("images")
    if not rows or images is None:
        return []
    source = parquet_scan(images)
    score = sql_name(found.metric) if found.metric in inputs.columns(source) else "NULL"
    scored = inputs.rows(
        "SELECT arm, seed, prompt_id, noise, form, wording, prompt, "
        f"{score} AS score FROM {source} WHERE list_contains(?, prompt_id)",
        [list(dict.fromkeys(row["prompt_id"] for row in rows))],
    )
    names = ("arm", "seed", "prompt_id", "noise")
    known = {tuple(row[name] for name in names): row for row in scored}
    return [
        {**row, **known[where]}
        for row in rows
        if (where := tuple(row[name] for name in names)) in known
    ]


def asked(form: str, wording: str = ALL) -> str:
    """Which prompts: "short prompts, as typed"."""
    said = {ALL: "", "own": "", "captioner": ", captioner's wording", "varied": ", varied wording"}
    said |= {"place-first": ", place first", "typed": ", as a person types"}
    return f"{text.words(form)} prompts{said.get(wording, f', {text.words(wording)}')}"


def of_group(group: str) -> str:
    """A group of prompts in words."""
    known = {ALL: "all", "seen": "pairs seen in training", "held_out": "pairs never trained on"}
    return known.get(group, text.words(group.removeprefix("category:")))


def mean_of(name: str, row: Row, metric: str, label: str = "") -> Estimate:
    """A mean of arms.parquet as a row of a chart, in the colour of `name`."""
    low, high = metrics.limits(row)
    mean = metrics.value(metric, row["mean"], low=low, high=high)
    shown = f"{name}: {mean} {metrics.interval(metric, low, high)}"
    dots = [value for value in row["per_seed"] or [] if value is not None]
    return Estimate(label, name, row["mean"], low, high, dots=dots, title=shown.strip())


def difference_of(row: Row) -> Estimate:
    """A difference of contrasts.parquet as a row of a chart, in its first arm's colour."""
    low, high = metrics.limits(row)
    pair = f"{row['arm_a']} {text.MINUS} {row['arm_b']}"
    size = metrics.value(row["metric"], row["difference"], True, low, high)
    limits = metrics.interval(row["metric"], low, high, signed=True)
    return Estimate(
        pair,
        row["arm_a"],
        row["difference"],
        low,
        high,
        dots=[value for value in row["per_seed"] or [] if value is not None],
        title=f"{pair}: {size} {limits}".strip(),
    )


def reach(rows: Iterable[Estimate], share: bool, start: float = 0.0) -> tuple[float, float]:
    """An x axis that holds all marks and whiskers of `rows`, and `start`."""
    ends = [start]
    for row in rows:
        ends += [row.mean, *row.dots, *(v for v in (row.low, row.high) if v is not None)]
    finite = [value for value in ends if math.isfinite(value)]
    margin = 0.06 * (max(finite) - min(finite)) or 0.05
    low, high = min(finite) - margin, max(finite) + margin
    return (max(low, -1.0), min(high, 1.0)) if share else (low, high)
