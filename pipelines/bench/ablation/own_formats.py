"""Each arm of the study of formats asked in its own format, and as a person types."""

from __future__ import annotations

import numpy as np

from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.results import Place, Results
from pipelines.ablation.settings import AblateSettings
from pipelines.bench.ablation.result_tables import markdown
from pipelines.statistics.interval import Estimate, paired

OWN_FORMATS = {"tags": ("tags", "own"), "json": ("json", "own")}
"""Arm -> the form and wording of its own prompts; of all others the captioner's."""


def own_formats(results: Results, settings: AblateSettings) -> list[str]:
    """Lines: own prompts of each arm beside a person's words, and beside those of `long`."""
    name = settings.primary.metric
    arms = [arm for arm in settings.all_arms if arm != "short"]

    def own(arm: str) -> Place:
        return Place(*OWN_FORMATS.get(arm, ("descriptive", "captioner")))

    rows = []
    for arm in arms:
        typed = _across(results, (arm, own(arm)), (arm, Place("descriptive", "typed")), name)
        long = _across(results, (arm, own(arm)), ("long", own("long")), name)
        at = results.values(arm, own(arm), name)
        mean = "-" if at is None else metric_of(name).shown(float(np.nanmean(at.matrix)))
        gain, beside = _difference(typed, name), _difference(long, name) if arm != "long" else "-"
        rows.append([arm, ", ".join(own(arm)[:2]), mean, gain, beside])
    head = ["arm", "own prompts", "own, %", "own - typed", "own - long's own"]
    told = (
        "What rewriting a prompt in the format of the captions gives, by a rewriter that knows the "
        "intent (exploratory; the same intents and noises):"
    )
    return ["", "## Asked in its own format", "", told, "", *markdown(head, rows)]


def _across(
    results: Results, a: tuple[str, Place], b: tuple[str, Place], metric: str
) -> Estimate | None:
    """a - b of two arms at two places that share intents; None where a seed has no value."""
    one, other = (results.values(arm, place, metric) for arm, place in (a, b))
    if one is None or other is None:
        return None
    places = {intent: place for place, intent in enumerate(other.intents.tolist())}
    # Texts that two intents share stand once in a wording, so a few intents may be of one only.
    both = [(p, places[i]) for p, i in enumerate(one.intents.tolist()) if i in places]
    mine, theirs = (list(column) for column in zip(*both, strict=True))
    seeds = tuple(seed for seed in one.seeds if seed in other.seeds)
    bounds = metric_of(metric).bounds(difference=True)
    return paired(one.of(seeds)[:, mine], other.of(seeds)[:, theirs], one.intents[mine], bounds)


def _difference(found: Estimate | None, name: str) -> str:
    if found is None:
        return "-"
    known = metric_of(name)
    if not found.has_interval:
        return known.shown(found.mean, True)
    digits = known.digits_for(found.low, found.high)
    return f"{known.shown(found.mean, True, digits)} {known.limits(found.low, found.high, True)}"
