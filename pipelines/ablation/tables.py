"""From pictures' and sets' values to the tables of a study, with words for each row.

Everything here is recomputable from results/images.parquet, results/sets.parquet and what was
declared. The columns stand in `schemas`, the interval in `pipelines.statistics.interval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.ablation.comparisons import comparisons
from pipelines.ablation.declared import Declaration
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.metrics import ordered
from pipelines.ablation.results import ALL, Results, read
from pipelines.ablation.schemas import ARMS, SCHEMAS, SETS
from pipelines.ablation.verdicts import Tested
from pipelines.statistics.interval import estimate
from pipelines.statistics.multiplicity import holm


@dataclass(frozen=True)
class Tables:
    """The tables of a study, and its answer.

    Attributes:
        headline: what was declared, in words.
        undefined: which metrics have no value where, in words.
    """

    arms: pa.Table
    contrasts: pa.Table
    equivalence: pa.Table
    interactions: pa.Table
    trends: pa.Table
    headline: list[str]
    undefined: list[str]

    def named(self) -> dict[str, pa.Table]:
        """Name of the file below results/ -> table."""
        return {name: getattr(self, name) for name in SCHEMAS}


def study_tables(images: pa.Table, sets: pa.Table | None, declared: Declaration) -> Tables:
    """All tables of a study.

    Args:
        images: the columns DESCRIBING, and a float64 column a metric.
        sets: the columns SETS; None where no judge scores sets.

    All that was declared is one family and adjusted by Holm, also what cannot be had: it keeps its
    place in the family and a sentence, and has no row. All other rows are exploratory: they have a
    p-value of their own and no claim.

    Raises:
        DatasetError: `images` lacks a column.
    """
    results = read(images, SETS.empty_table() if sets is None else sets)
    tests = list(comparisons(results, declared))
    family = [test.p_value for test in tests if test.declared]
    adjusted = iter(holm(family))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS if name != "arms"}
    headline = []
    for test in tests:
        tested = Tested(next(adjusted), len(family)) if test.declared else None
        if test.found is not None:
            rows[test.table].append(test.row(tested))
        if test.declared:
            headline.append(test.words(tested))
    named = {name: pa.Table.from_pylist(rows[name], schema=SCHEMAS[name]) for name in rows}
    return Tables(arms=arms_table(results), **named, headline=headline, undefined=left_out(results))


def arms_table(results: Results) -> pa.Table:
    """Mean and interval of each arm, place and metric that has a value in every seed."""
    rows: list[dict[str, Any]] = []
    for arm in results.arms:
        for place in results.places:
            for metric in results.metrics:
                values = results.values(arm, place, metric)
                if values is None:
                    continue
                known = metric_of(metric)
                found = estimate(values.matrix, values.intents, known.bounds())
                low, high = known.within(found.low, found.high)
                rows.append(
                    {
                        "arm": arm,
                        **place._asdict(),
                        "metric": metric,
                        "mean": found.mean,
                        "low": low if found.has_interval else None,
                        "high": high if found.has_interval else None,
                        "seeds": len(values.seeds),
                        "prompts": values.prompts,
                        "per_seed": list(found.per_seed),
                    }
                )
    return pa.Table.from_pylist(rows, schema=ARMS)


def left_out(results: Results) -> list[str]:
    """Metrics without a value on a form: "position of b on short prompts"."""
    lines: dict[str, list[str]] = {}
    for place in results.places:
        if (place.wording, place.group) != (ALL, ALL):
            continue
        for metric in results.metrics:
            lacking = [arm for arm in results.arms if results.values(arm, place, metric) is None]
            nowhere = len(lacking) == len(results.arms)
            if not lacking or (nowhere and metric in results.set_metrics):
                continue  # sets are scored on the forms that were asked for
            whose = "" if nowhere else f" of {', '.join(lacking)}"
            lines.setdefault(f"{whose} on {place.form} prompts", []).append(metric_of(metric).label)
    return [", ".join(dict.fromkeys(labels)) + where for where, labels in lines.items()]


def text_table(arms: pa.Table, undefined: Sequence[str] = (), primary: str = "") -> str:
    """The arms as a plain-text table: a block a form, a row a metric, with 95% intervals.

    All wordings together; where a form has several, they follow for `primary`, or where a form
    lacks it for its first metric.
    """
    rows = [row for row in arms.to_pylist() if row["group"] == ALL]
    names = list(dict.fromkeys(row["arm"] for row in rows))
    cells = {(r["form"], r["wording"], r["metric"], r["arm"]): _cell(r) for r in rows}
    seeds = sorted({row["seeds"] for row in rows})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    plural = "s" if seeds[-1:] != [1] else ""
    blocks: list[tuple[str, list[tuple[str, str, str]]]] = []
    for form in dict.fromkeys(row["form"] for row in rows):
        own = [row for row in rows if row["form"] == form]
        metrics = [m for m in ordered(row["metric"] for row in own) if metric_of(m).brief]
        lines = [(metric_of(metric).column, ALL, metric) for metric in metrics]
        wordings = [w for w in dict.fromkeys(row["wording"] for row in own) if w != ALL]
        if len(wordings) > 1 and metrics:
            known = metrics.index(primary) if primary in metrics else 0
            worded = [(f"  {wording}", wording, metrics[known]) for wording in wordings]
            lines[known + 1 : known + 1] = worded
        blocks.append((form, lines))
    heads = [f"{form} prompts" for form, _ in blocks]
    labels = [f"  {label}" for _, lines in blocks for label, _, _ in lines]
    margin = max(map(len, [*heads, *labels, ""])) + 2
    width = max(map(len, [*cells.values(), *names, ""])) + 2
    text = [f"mean of {count} seed{plural} [95% over seeds and prompts]"]
    for (form, lines), head in zip(blocks, heads, strict=True):
        text += ["", head.ljust(margin) + "".join(name.rjust(width) for name in names)]
        for label, wording, metric in lines:
            shown = (cells.get((form, wording, metric, name), "-") for name in names)
            text.append(f"  {label}".ljust(margin) + "".join(cell.rjust(width) for cell in shown))
    if undefined:
        text += ["", f"undefined and left out: {'; '.join(undefined)}"]
    return "\n".join(text)


def _cell(row: dict[str, Any]) -> str:
    known = metric_of(row["metric"])
    if row["low"] is None:
        return known.shown(row["mean"])
    digits = known.digits_for(row["low"], row["high"])
    return f"{known.shown(row['mean'], digits=digits)} {known.limits(row['low'], row['high'])}"
