"""Tests in words, which claim no more than was shown.

"beats" is said of a declared contrast alone, and where more is better. What is not shown is told
with its interval and with the difference that the study could have seen. Units and digits are
those of the one table of metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.ablation.metrics import Metric, metric
from pipelines.ablation.results import ALL, Place
from pipelines.statistics.interval import ALPHA, Estimate

_TENTH_SEEN = 0.4
"""Two-sided level of the quantile that 80% lie below."""


@dataclass(frozen=True)
class Tested:
    """A declared test as it came out: its adjusted p-value among `family` tests."""

    p_holm: float
    family: int

    @property
    def claimed(self) -> bool:
        """Whether it may be claimed; False for NaN."""
        return self.p_holm < ALPHA


def where(place: Place) -> str:
    """The prompts in words: "descriptive prompts, wording typed, held-out pairs"."""
    words = f"{place.form} prompts"
    if place.wording not in (ALL, "own"):
        words += f", wording {place.wording}"
    if place.group == "held_out":
        words += ", held-out pairs"
    elif place.group == "seen":
        words += ", seen pairs"
    elif place.group != ALL:
        words += f", {place.group.removeprefix('category:')}"
    return words


def size(known: Metric, found: Estimate) -> str:
    """A difference with its interval: "+12.3 points [8.1, 16.5]"."""
    digits = known.digits_for(found.low, found.high) if found.has_interval else known.digits
    text = f"{known.shown(found.mean, True, digits)}{known.suffix}"
    return f"{text} {known.limits(found.low, found.high)}" if found.has_interval else text


def contrast(
    arm_a: str, arm_b: str, place: Place, name: str, found: Estimate, tested: Tested | None
) -> str:
    """arm_a - arm_b; `tested` is None of an exploratory row."""
    known = metric(name)
    prompts = about(place, name)
    told = _told(found, known, f"{arm_a} minus {arm_b} {prompts}", tested is not None)
    if told:
        return told
    if tested is None:
        return f"Exploratory: {arm_a} minus {arm_b} {prompts} is {size(known, found)}."
    if not tested.claimed:
        return (
            f"Not shown: a difference of {arm_a} and {arm_b} {prompts}: "
            f"{size(known, found)}. {_unseen(known, found, tested)}"
        )
    above = found.mean > 0
    if known.less_is_better:
        relation = "is above" if above else "is below"
    else:
        relation = "beats" if above else "falls behind"
    digits = known.digits_for(found.low, found.high)
    by = f"{known.shown(abs(found.mean), digits=digits)}{known.suffix}"
    low, high = (found.low, found.high) if above else (-found.high, -found.low)
    return f"{arm_a} {relation} {arm_b} {prompts} by {by} {known.limits(low, high)}."


def no_worse(
    arm: str, than: str, place: Place, name: str, margin: float, found: Estimate, tested: Tested
) -> str:
    """Whether `arm` is shown to lose less than `margin` against `than`."""
    known = metric(name)
    prompts = about(place, name)
    limit = f"{known.factor * margin:g}{known.suffix}"
    told = _told(found, known, f"{arm} minus {than} {prompts}", True)
    if told:
        return told
    if tested.claimed:
        return f"{arm} is not worse than {than} {prompts} by {limit} or more: {size(known, found)}."
    return (
        f"Not shown: that {arm} is not worse than {than} {prompts} by {limit} or more: "
        f"{size(known, found)} ({_p(tested)})."
    )


def interaction(
    arms: tuple[str, str],
    forms: tuple[str, str],
    wording: str,
    name: str,
    found: Estimate,
    tested: Tested,
) -> str:
    """Whether two arms differ more on one prompt form than on the other."""
    known = metric(name)
    a, b = arms
    first, second = (where(Place(form, wording)) for form in forms)
    what = f"{a} minus {b} on {first} against {second} ({known.label})"
    told = _told(found, known, what, True)
    if told:
        return told
    if not tested.claimed:
        return (
            f"Not shown: that the difference of {a} and {b} is another on {first} than on {second} "
            f"({known.label}): {size(known, found)}. {_unseen(known, found, tested, 2.0)}"
        )
    more = "greater" if found.mean > 0 else "less"
    told = f"{a} minus {b} is {more} on {first} than on {second} ({known.label})"
    return f"{told}: {size(known, found)}."


def trend(sweep: str, place: Place, name: str, found: Estimate, page: float, tested: Tested) -> str:
    """Whether a metric rises or falls with the dose; `found` is the slope for ten points.

    Args:
        page: p-value of Page's test of the order of all doses, beside the slope's; NaN without.
    """
    known = metric(name)
    prompts = f"with the dose of {sweep} {about(place, name)}"
    told = _told(found, known, f"The slope {prompts} for ten points of dose", True)
    if told:
        return told
    slope = f"{size(known, found)} for ten points of dose"
    order = (
        f"; Page's test of the order of doses, unadjusted: p {page:.2g}"
        if not math.isnan(page)
        else ""
    )
    if not tested.claimed:
        return f"Not shown: a trend {prompts}: {slope}{order}. {_unseen(known, found, tested)}"
    return f"{known.label} {'rises' if found.mean > 0 else 'falls'} {prompts}: {slope}{order}."


def undefined(what: str) -> str:
    """The sentence of a declared test that cannot be had."""
    return f"Not shown: {what}: an arm has no value there."


def about(place: Place, name: str) -> str:
    """The prompts and the metric in words: "on short prompts (object)"."""
    return f"on {where(place)} ({metric(name).label})"


def _told(found: Estimate, known: Metric, what: str, declared: bool) -> str:
    """The sentence of what has no interval; empty where there is one."""
    if found.has_interval:
        return ""
    value = size(known, found)
    if found.seeds < 2:
        return f"Exploratory, one seed: {what} is {value}."
    head = "Not shown" if declared else "Exploratory"
    return f"{head}: {what} is {value} everywhere, and what does not vary has no interval."


def _unseen(known: Metric, found: Estimate, tested: Tested, times: float = 1.0) -> str:
    """What would have been seen in four of five such studies.

    Args:
        times: how many times a difference of two values what is tested can be, at most.

    Source: the minimum detectable effect, Bloom (1995), Evaluation Review 19.
    """
    least = found.half_width(ALPHA / tested.family) + found.half_width(_TENTH_SEEN)
    if least >= times * known.widest or not math.isfinite(least):
        return f"This study could not have seen any difference ({_p(tested)})."
    digits = known.digits_for(found.low, found.high)
    seen = f"{known.shown(least, digits=digits)}{known.suffix}"
    return f"This study would have seen {seen} in four cases of five ({_p(tested)})."


def _p(tested: Tested) -> str:
    return f"p {tested.p_holm:.2g} among {tested.family} tests"
