"""Studies with a known truth: arms by seeds by prompts, many at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipelines.statistics.interval import Floats
from pipelines.statistics.plan import Variances


@dataclass(frozen=True)
class Mix:
    """Where the variance of a contrast's mean comes from; the three shares sum to 1."""

    seed: float
    prompt: float
    both: float

    @property
    def name(self) -> str:
        """Such as seed90-prompt10-both0."""
        return f"seed{100 * self.seed:.0f}-prompt{100 * self.prompt:.0f}-both{100 * self.both:.0f}"

    def variances(self, seeds: int, prompts: int) -> Variances:
        """Parts of one value such that the mean of `seeds` and `prompts` has variance 1."""
        seed, prompt = self.seed * seeds, self.prompt * prompts
        return Variances(seed, prompt, self.both * seeds * prompts, 0.0, seeds, seed)


MIXES = (
    Mix(1, 0, 0),
    Mix(0.9, 0.1, 0),
    Mix(0.7, 0.3, 0),
    Mix(0.5, 0.5, 0),
    Mix(0.1, 0.9, 0),
    Mix(0.3, 0.3, 0.4),
    Mix(0.1, 0.1, 0.8),
    Mix(0, 0.5, 0.5),  # retraining changes nothing
    Mix(0, 0, 1),
)


def normal_arms(
    rng: np.random.Generator,
    parts: Variances,
    studies: int,
    arms: int,
    seeds: int,
    prompts: int,
) -> Floats:
    """`(N, A, S, P)` values without a true difference.

    Each arm has half of the variance `parts` of a contrast; what arms share cancels in it, and is
    left out.
    """

    def effect(variance: float, *shape: int) -> Floats:
        return rng.normal(0, math.sqrt(variance / 2), (studies, arms, *shape))

    by_seed, by_prompt = effect(parts.seed, seeds, 1), effect(parts.prompt, 1, prompts)
    return by_seed + by_prompt + effect(parts.both, seeds, prompts)


@dataclass(frozen=True)
class Hits:
    """Binary outcomes: log-odds vary by seed and by prompt around those of a share.

    Attributes:
        share: the middle of the chance of a hit.
        seed, prompt: standard deviations of the log-odds; the prompt's is shared by arms.
        prompts: how many are asked.
    """

    share: float
    seed: float
    prompt: float
    prompts: int = 60

    @property
    def name(self) -> str:
        """Such as hits1-seed0-prompt1-of60, the share in percent."""
        of = f"of{self.prompts}"
        return f"hits{100 * self.share:g}-seed{self.seed:g}-prompt{self.prompt:g}-{of}"

    def arms(self, rng: np.random.Generator, studies: int, arms: int, seeds: int) -> Floats:
        """`(N, A, S, P)` of 0.0 and 1.0, without a true difference."""
        from scipy.special import expit, logit

        by_seed = rng.normal(0, 1, (studies, arms, seeds, 1)) * self.seed
        by_prompt = rng.normal(0, 1, (studies, 1, 1, self.prompts)) * self.prompt
        chance = expit(logit(self.share) + by_seed + by_prompt)
        return (rng.random((studies, arms, seeds, self.prompts)) < chance).astype(np.float64)

    def true_mean(self) -> float:
        """The chance of a hit over all seeds and prompts (Gauss and Hermite's rule)."""
        from scipy.special import expit, logit

        nodes, weights = np.polynomial.hermite_e.hermegauss(64)
        spread = math.hypot(self.seed, self.prompt)
        return float(weights @ expit(logit(self.share) + spread * nodes) / weights.sum())


HITS = (
    Hits(0.01, 0, 0),
    Hits(0.01, 0.3, 1),
    Hits(0.05, 0, 1),
    Hits(0.05, 0.8, 1),
    Hits(0.5, 0.3, 1),
    Hits(0.99, 0.3, 1),
    # Seeds scatter as widely as models that fail to train; prompts hide it less and less.
    Hits(0.03, 0.8, 1, 200),
    Hits(0.03, 0.8, 0, 200),
    Hits(0.97, 0.8, 0, 200),
)


def allowed(share: float, studies: int) -> float:
    """`share` and three standard errors of what so many studies say of it."""
    return share + 3 * math.sqrt(share * (1 - share) / studies)
