"""What a study declares before its runs: the tests that it will answer, and no others.

All of them form one family: their p-values are adjusted together, by Holm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field, model_validator

from curate.base.settings import Settings


class Primary(Settings):
    """The metric, prompt form and wording that decide."""

    metric: str = Field("object_hit", description="The metric that decides; set before the run")
    form: str = Field("descriptive", description="The prompt form that decides")
    wording: str = Field("all", description="The wording that decides; all = all together")


class NoWorse(Settings):
    """`arm` is claimed to lose less than `margin` against `than`: "no downside", with a number."""

    arm: str
    than: str
    form: str = Field(description="Prompt form")
    wording: str = Field("all", description="Wording; all = all together")
    metric: str | None = Field(None, description="Metric; none = the primary one")
    margin: float = Field(
        gt=0,
        description="The loss that would matter, in the metric's stored unit: 0.03 is three points "
        "of a share",
    )

    @model_validator(mode="after")
    def _two_arms(self) -> NoWorse:
        if self.arm == self.than:
            raise ValueError(f"{self.arm!r} cannot be worse than itself")
        return self


class Interaction(Settings):
    """Whether arms a and b differ on form f by more than on form g."""

    arms: tuple[str, str]
    forms: tuple[str, str]
    wording: str | None = Field(None, description="Wording; none = the primary one")
    metric: str | None = Field(None, description="Metric; none = the primary one")

    @model_validator(mode="after")
    def _two_of_each(self) -> Interaction:
        if len(set(self.arms)) < 2 or len(set(self.forms)) < 2:
            raise ValueError("an interaction is of two arms and of two forms")
        return self


class Sweep(Settings):
    """Arms that differ in the share of one caption set, the rest being another."""

    kind: str = Field(description="Caption set whose share is swept")
    rest: str = Field(description="Caption set that makes up the rest")
    shares: tuple[float, ...] = Field(min_length=2, description="Shares of `kind`, in percent")

    @model_validator(mode="after")
    def _shares_are_percents(self) -> Sweep:
        if min(self.shares) < 0 or max(self.shares) > 100:
            raise ValueError("the shares of a sweep are percents, 0 to 100")
        if len(self.doses) != len(self.shares):
            raise ValueError("every share of a sweep may stand only once, to six digits")
        if self.kind == self.rest:
            raise ValueError("a sweep needs another caption set for the rest")
        return self

    @property
    def doses(self) -> dict[str, float]:
        """Arm -> its share in percent: {"descriptive-95": 95.0}."""
        return {f"{self.kind}-{share:g}": share for share in self.shares}

    @property
    def blends(self) -> dict[str, dict[str, float]]:
        """Arm -> {caption set: share of 1}, empty shares left out."""
        parts = {
            arm: {self.kind: dose / 100, self.rest: (100 - dose) / 100}
            for arm, dose in self.doses.items()
        }
        return {
            arm: {kind: share for kind, share in blend.items() if share > 0}
            for arm, blend in parts.items()
        }


def refuse_empty_tests(
    contrasts: tuple[tuple[str, str], ...], trends: Mapping[str, Mapping[str, float]]
) -> None:
    """
    Raises:
        ValueError: a test compares an arm with itself, stands twice, which the family would pay
            for, or is a trend over less than two doses.
    """
    seen: set[frozenset[str]] = set()
    for pair in map(frozenset, contrasts):
        if len(pair) < 2:
            raise ValueError(f"a contrast compares {min(pair)!r} with itself")
        if pair in seen:
            raise ValueError(f"the contrast of {' and '.join(sorted(pair))} stands there twice")
        seen.add(pair)
    for name, doses in trends.items():
        if len(set(doses.values())) < 2:
            raise ValueError(f"the trend {name!r} needs arms of two different doses")


@dataclass(frozen=True)
class Declaration:
    """All that was declared.

    Attributes:
        contrasts: pairs of arms, compared on the primary metric, form and wording.
        trends: name -> {arm: dose}, tested on the primary metric, form and wording; of a sweep the
            doses are percents of its caption set.
    """

    primary: Primary = field(default_factory=Primary)
    contrasts: tuple[tuple[str, str], ...] = ()
    no_worse: tuple[NoWorse, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    trends: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
