"""How many seeds, prompts and noises a study needs, from what a pilot's contrasts scattered.

A contrast's values vary by seed, by prompt, by both together and by the noise that a picture was
drawn from; the parts are estimated by the mean squares of the pilot and put together anew for
other numbers. Power is simulated with the interval that the study will use, at the level that Holm
asks of its first claim (5% over the size of the family): what is promised holds for each declared
contrast whatever the others do.

A standard deviation out of few seeds is uncertain: with three, the true one may well be twice what
was seen. So every plan stands there twice: with the seed part as measured, and with its upper 80%
limit, as Browne (1995, Statistics in Medicine 14) advises for pilots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.statistics.interval import ALPHA, Floats, Spread, crossed

POWER = 0.8
CAUTION = 0.8
"""Confidence of the upper limit of the seed part."""
MOST_SEEDS = 64
_DRAWS = 4000


@dataclass(frozen=True)
class Variances:
    """Parts of the variance of one contrast's single value, in the metric's squared unit.

    Attributes:
        seed, prompt, both: of a training seed, of a prompt cluster, of the two together.
        noise: of a single picture; 0 where the pilot drew one a prompt, and is in `both` then.
        seeds: of the pilot.
        cautious_seed: upper limit of `seed`.
    """

    seed: float
    prompt: float
    both: float
    noise: float
    seeds: int
    cautious_seed: float

    @property
    def cautious(self) -> Variances:
        """With the seed part at its upper limit."""
        return replace(self, seed=self.cautious_seed)


def variances(
    differences: Floats, clusters: Sequence[Any] | NDArray[Any] | None = None
) -> Variances:
    """The parts, from `(S, P, N)` differences of S seeds, P prompts and N noises.

    Prompts without a value everywhere are left out.

    Raises:
        ValueError: fewer than two seeds, or no prompt is left.
    """
    used = ~np.isnan(differences).any((0, 2))
    values = differences[:, used]
    if values.shape[0] < 2 or not used.any():
        raise ValueError("A plan needs a pilot of two seeds, and prompts that all of them answer.")
    made = crossed(values.mean(-1), None if clusters is None else np.asarray(clusters)[used])
    S, C, N = values.shape[0], made.per_cluster.shape[-1], values.shape[2]
    single = float(values.var(-1, ddof=1).mean()) if N > 1 else 0.0
    # A cluster of several prompts averages their noises.
    noise = single * C / values.shape[1]
    seed, rest = float(made.spread.seed), float(made.residual)
    upper = _upper(S - 1)
    return Variances(
        seed=max(0.0, seed - rest) * S,
        prompt=float(made.spread.prompt) * C,
        both=max(0.0, rest * S * C - noise / N),
        noise=noise,
        seeds=S,
        cautious_seed=max(0.0, seed * upper - rest) * S,
    )


def _upper(df: int) -> float:
    from scipy.stats import chi2

    return float(df / chi2.ppf(1 - CAUTION, df))


def pooled(parts: Sequence[Variances]) -> Variances:
    """The mean of several contrasts' parts; they share arms, so their seeds count once."""
    names = ("seed", "prompt", "both", "noise", "cautious_seed")
    means = {name: float(np.mean([getattr(part, name) for part in parts])) for name in names}
    return Variances(seeds=parts[0].seeds, **means)


def power(
    parts: Variances, detect: float, seeds: int, prompts: int, noises: int, family: int
) -> float:
    """Share of studies that claim a true difference of `detect`, by simulation (0.7% error).

    Args:
        prompts: clusters of prompts, each of as many prompts as in the pilot.
        family: how many tests are declared.
    """
    rng = np.random.default_rng(0)
    rest = (parts.both + parts.noise / noises) / (seeds * prompts)
    seed, prompt = parts.seed / seeds + rest, parts.prompt / prompts
    mean = rng.normal(detect, math.sqrt(seed + prompt), _DRAWS)
    by_prompt = max(prompts - 1, 1)
    between = (prompt + rest) * rng.chisquare(by_prompt, _DRAWS) / by_prompt
    residual = rng.chisquare((seeds - 1) * by_prompt, _DRAWS) / ((seeds - 1) * by_prompt) * rest
    spread = Spread(
        mean,
        seed * rng.chisquare(seeds - 1, _DRAWS) / (seeds - 1),
        np.maximum(between - residual, 0.0),
        np.full(_DRAWS, seeds - 1.0),
        by_prompt,
    )
    return float(np.mean(spread.half_width(ALPHA / family) < np.abs(mean)))


def seeds_needed(
    parts: Variances, detect: float, prompts: int, noises: int, family: int
) -> int | None:
    """The fewest seeds, from three on, that reach POWER; None where MOST_SEEDS do not."""
    # By halves: power grows with the seeds.
    few, many = 2, MOST_SEEDS
    if power(parts, detect, many, prompts, noises, family) < POWER:
        return None
    while many - few > 1:
        middle = (few + many) // 2
        enough = power(parts, detect, middle, prompts, noises, family) >= POWER
        few, many = (few, middle) if enough else (middle, many)
    return many


@dataclass(frozen=True)
class Cost:
    """What runs cost, as measured in the pilot.

    Attributes:
        arms: of the study.
        train_seconds: of one training run.
        picture_seconds: of drawing and judging one picture.
        prompts: prompts of all forms and wordings that a run draws for each prompt cluster.
    """

    arms: int
    train_seconds: float
    picture_seconds: float
    prompts: float

    def hours(self, seeds: int, prompts: int, noises: int) -> float:
        """Of all runs, one after another."""
        pictures = self.prompts * prompts * noises
        return self.arms * seeds * (self.train_seconds + pictures * self.picture_seconds) / 3600


@dataclass(frozen=True)
class Option:
    """One way to reach the power: seeds as measured and cautiously, None where too many."""

    prompts: int
    noises: int
    seeds: int | None
    hours: float
    cautious_seeds: int | None
    cautious_hours: float


def options(
    parts: Variances,
    detect: float,
    prompts: Sequence[int],
    noises: Sequence[int],
    family: int,
    cost: Cost,
) -> list[Option]:
    """Every number of prompts with every number of noises, the cheapest first."""
    found = []
    for count in prompts:
        for drawn in noises:
            asked = [
                seeds_needed(each, detect, count, drawn, family) for each in (parts, parts.cautious)
            ]
            hours = [
                math.inf if seeds is None else cost.hours(seeds, count, drawn) for seeds in asked
            ]
            found.append(Option(count, drawn, asked[0], hours[0], asked[1], hours[1]))
    return sorted(found, key=lambda option: (option.hours, option.cautious_hours))
