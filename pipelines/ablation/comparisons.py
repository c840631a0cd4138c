"""Every test of a study: what was declared, and contrasts elsewhere, which are exploratory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.ablation import verdicts
from pipelines.ablation.declared import Declaration, Interaction, NoWorse
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.results import Place, Results, Values, difference
from pipelines.ablation.verdicts import Tested
from pipelines.statistics import trend
from pipelines.statistics.equivalence import not_worse
from pipelines.statistics.interaction import interaction
from pipelines.statistics.interval import Estimate


@dataclass(frozen=True)
class Comparison:
    """One row of a table before the tests are adjusted for one another.

    Attributes:
        table: of which it is a row.
        columns: what it compares, by the columns of that table.
        found: None where it cannot be had: an arm has no value there.
        p_value: of the test, which for a margin is another than that of `found`.
        words: its sentence; of None where it is exploratory.
    """

    table: str
    columns: dict[str, Any]
    found: Estimate | None
    p_value: float
    declared: bool
    words: Callable[[Tested | None], str]

    def row(self, tested: Tested | None) -> dict[str, Any]:
        """The row, with the metric's own limits."""
        found = self.found
        assert found is not None
        value = "slope" if self.table == "trends" else "difference"
        low, high = found.low, found.high
        if self.table in ("contrasts", "equivalence"):
            low, high = metric_of(self.columns["metric"]).within(low, high, difference=True)
        return {
            **self.columns,
            value: found.mean,
            "low": _null(low),
            "high": _null(high),
            "p_value": _null(self.p_value),
            "p_holm": None if tested is None else _null(tested.p_holm),
            "declared": self.declared,
            "claimed": tested is not None and tested.claimed,
            "verdict": self.words(tested),
        }


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def comparisons(results: Results, declared: Declaration) -> Iterator[Comparison]:
    """All tests, the declared ones of each table first."""
    primary = Place(declared.primary.form, declared.primary.wording)
    metric = declared.primary.metric
    for a, b in declared.contrasts:
        yield _contrast(results, a, b, primary, metric, declared=True)
    for a, b in declared.contrasts:
        for place in results.places:
            for name in results.metrics:
                if (place, name) != (primary, metric):
                    found = _contrast(results, a, b, place, name, declared=False)
                    if found.found is not None:
                        yield found
    for margin in declared.no_worse:
        yield _no_worse(results, margin, metric)
    for asked in declared.interactions:
        yield _interaction(results, asked, metric, declared.primary.wording)
    for name, doses in declared.trends.items():
        yield _trend(results, name, dict(doses), primary, metric)


def _contrast(
    results: Results, a: str, b: str, place: Place, metric: str, declared: bool
) -> Comparison:
    found, by_seed, prompts = _difference(results, a, b, place, metric)
    columns = {
        "arm_a": a,
        "arm_b": b,
        **place._asdict(),
        "metric": metric,
        "paired": by_seed,
        "seeds": found.seeds if found else 0,
        "prompts": prompts,
        "per_seed": list(found.per_seed) if found else [],
    }

    def words(tested: Tested | None) -> str:
        if found is None:
            return verdicts.undefined(f"{a} minus {b} {verdicts.about(place, metric)}")
        return verdicts.contrast(a, b, place, metric, found, tested)

    return Comparison("contrasts", columns, found, _p(found), declared, words)


def _no_worse(results: Results, asked: NoWorse, primary: str) -> Comparison:
    place, metric = Place(asked.form, asked.wording), asked.metric or primary
    found, _, _ = _difference(results, asked.arm, asked.than, place, metric)
    less = metric_of(metric).less_is_better
    p_value = math.nan if found is None else not_worse(found, asked.margin, less)
    columns = {
        "arm": asked.arm,
        "than": asked.than,
        "form": place.form,
        "wording": place.wording,
        "metric": metric,
        "margin": asked.margin,
    }

    def words(tested: Tested | None) -> str:
        if found is None or tested is None:
            what = f"{asked.arm} minus {asked.than} {verdicts.about(place, metric)}"
            return verdicts.undefined(what)
        return verdicts.no_worse(asked.arm, asked.than, place, metric, asked.margin, found, tested)

    return Comparison("equivalence", columns, found, p_value, True, words)


def _interaction(results: Results, asked: Interaction, primary: str, wording: str) -> Comparison:
    metric, wording = asked.metric or primary, asked.wording or wording
    (a, b), forms = asked.arms, asked.forms
    found = None
    on = [[results.values(arm, Place(form, wording), metric) for arm in (a, b)] for form in forms]
    every = [values for pair in on for values in pair if values is not None]
    seeds = _shared(every)
    if len(every) == 4 and seeds and all(values.prompts for values in every):
        pairs = [
            (one.of(seeds) - other.of(seeds), one.intents) for one, other in (every[:2], every[2:])
        ]
        found = interaction(*pairs[0], *pairs[1])
        found = found if found.defined else None
    columns = {
        "arm_a": a,
        "arm_b": b,
        "form_a": forms[0],
        "form_b": forms[1],
        "metric": metric,
    }

    def words(tested: Tested | None) -> str:
        if found is None or tested is None:
            both = " against ".join(verdicts.about(Place(f, wording), metric) for f in forms)
            return verdicts.undefined(f"{a} minus {b} {both}")
        return verdicts.interaction((a, b), forms, wording, metric, found, tested)

    return Comparison("interactions", columns, found, _p(found), True, words)


def _trend(
    results: Results, sweep: str, doses: dict[str, float], place: Place, metric: str
) -> Comparison:
    arms = sorted(doses, key=lambda arm: doses[arm])
    values = [v for arm in arms if (v := results.values(arm, place, metric)) is not None]
    seeds, found, page = _shared(values), None, math.nan
    means: list[float] = []
    if len(values) == len(arms) and seeds:
        cube = np.stack([one.of(seeds) for one in values])
        # For ten points of dose.
        found = trend.slope(cube, [doses[arm] / 10 for arm in arms], values[0].intents)
        found = found if found.defined else None
        per_seed = np.nanmean(cube, -1).T
        page = trend.ordered(per_seed)
        means = [float(mean) for mean in per_seed.mean(0)]
    columns = {
        "sweep": sweep,
        "form": place.form,
        "wording": place.wording,
        "metric": metric,
        "doses": [doses[arm] for arm in arms],
        "means": means,
    }

    def words(tested: Tested | None) -> str:
        if found is None or tested is None:
            return verdicts.undefined(f"the trend of {sweep} {verdicts.about(place, metric)}")
        return verdicts.trend(sweep, place, metric, found, page, tested)

    return Comparison("trends", columns, found, _p(found), True, words)


def _difference(
    results: Results, a: str, b: str, place: Place, metric: str
) -> tuple[Estimate | None, bool, int]:
    """a - b, whether it is paired by seed, and of how many prompts; None where it is undefined."""
    one, other = (results.values(arm, place, metric) for arm in (a, b))
    if one is None or other is None:
        return None, False, 0
    found, by_seed = difference(one, other, metric_of(metric).bounds(difference=True))
    return (found if found.defined else None), by_seed, one.prompts


def _shared(values: list[Values]) -> tuple[int, ...]:
    """Seeds that all of them have."""
    if not values:
        return ()
    return tuple(seed for seed in values[0].seeds if all(seed in v.seeds for v in values))


def _p(found: Estimate | None) -> float:
    return math.nan if found is None else found.p_value
