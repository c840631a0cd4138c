"""Does a plan deliver its power; are "no downside" and trends claimed where there are none?"""

from __future__ import annotations

import math

import numpy as np

from pipelines.bench.ablation.made_studies import Mix, allowed, normal_arms
from pipelines.bench.common.figures import Figures
from pipelines.statistics.equivalence import not_worse
from pipelines.statistics.interval import ALPHA, crossed, estimate
from pipelines.statistics.plan import POWER, Variances, power, seeds_needed, variances
from pipelines.statistics.trend import ordered, slope

FAMILY = 3
TRUTHS = {
    # In points of a share: of a seed, a prompt, both and a noise; and what is to be seen.
    "seeds-scatter": (Variances(3.0**2, 5.0**2, 10.0**2, 30.0**2, 3, 3.0**2), 5.0),
    "prompts-scatter": (Variances(0.5**2, 10.0**2, 10.0**2, 30.0**2, 3, 0.5**2), 5.0),
    "noises-scatter": (Variances(0.0, 3.0**2, 5.0**2, 50.0**2, 3, 0.0), 5.0),
}
PILOTS, PILOT_SEEDS, PROMPTS, NOISES = 200, 5, 100, 2
DOSES, TREND_PROMPTS = (0.0, 50.0, 80.0, 95.0, 100.0), 30
PAGE_STUDIES = 1000
"""Page's test is slow."""
MARGIN = 2.0
"""In standard errors of the difference."""
MOST_OFF = 0.03
"""How far the power that is simulated may lie from the one that was promised."""


def power_figures(figures: Figures, studies: int) -> None:
    """Plans from the truth, whose studies are then made; and plans from pilots of five seeds."""
    for name, (truth, detect) in TRUTHS.items():
        seeds = seeds_needed(truth, detect, PROMPTS, NOISES, FAMILY)
        if seeds is None:
            raise ValueError(f"{name} cannot be planned; choose another truth.")
        promised = power(truth, detect, seeds, PROMPTS, NOISES, FAMILY)
        rng = np.random.default_rng(3)
        single = Variances(
            truth.seed, truth.prompt, truth.both + truth.noise / NOISES, 0.0, seeds, truth.seed
        )
        values = normal_arms(rng, single, studies, 2, seeds, PROMPTS)
        values[:, 0] += detect
        # The level of Holm's first claim.
        p_values = crossed(values[:, 0] - values[:, 1]).spread.p_value()
        reached = float(np.mean(p_values < ALPHA / FAMILY))
        prefix = f"plan/{name}"
        figures.add(f"{prefix}/seeds", seeds, "seeds")
        figures.add(f"{prefix}/promised", promised, "share")
        figures.add(f"{prefix}/power", reached, "share")
        off = abs(reached - promised)
        figures.add(f"{prefix}/off", off, "share", at_most=MOST_OFF)
        _from_pilots(figures, prefix, truth, detect)


def _from_pilots(figures: Figures, prefix: str, truth: Variances, detect: float) -> None:
    """The power that plans of pilots really have, as measured and cautiously."""
    rng = np.random.default_rng(4)
    reached: dict[str, list[float]] = {"as-measured": [], "cautious": []}
    for _ in range(PILOTS):
        values = normal_arms(rng, truth, 1, 2, PILOT_SEEDS, PROMPTS)[0]
        noise = rng.normal(0, math.sqrt(truth.noise / 2), (2, PILOT_SEEDS, PROMPTS, NOISES))
        drawn = values[..., None] + noise
        parts = variances(drawn[0] - drawn[1])
        for name, own in (("as-measured", parts), ("cautious", parts.cautious)):
            seeds = seeds_needed(own, detect, PROMPTS, NOISES, FAMILY)
            if seeds is not None:
                reached[name].append(power(truth, detect, seeds, PROMPTS, NOISES, FAMILY))
    for name, powers in reached.items():
        figures.add(f"{prefix}/pilot-{name}/median-power", float(np.median(powers)), "share")
        enough = float(np.mean([each >= POWER - MOST_OFF for each in powers]))
        figures.add(f"{prefix}/pilot-{name}/enough", enough, "share of pilots")


def equivalence_figures(figures: Figures, studies: int) -> None:
    """An arm that is worse by just the margin must not be claimed to be no worse.

    The p-value is twice the one-sided one, so half of ALPHA is allowed.
    """
    for seeds in (3, 5, 8):
        for mix in (Mix(1, 0, 0), Mix(0.5, 0.5, 0), Mix(0, 0.5, 0.5)):
            rng = np.random.default_rng(5)
            arms = normal_arms(rng, mix.variances(seeds, 60), studies, 2, seeds, 60)
            differences = arms[:, 0] - arms[:, 1] - MARGIN
            wrong = [not_worse(estimate(study), MARGIN) < ALPHA for study in differences]
            figures.add(
                f"no-worse/{mix.name}/{seeds}-seeds/false-claims",
                float(np.mean(wrong)),
                "share",
                at_most=allowed(ALPHA / 2, studies),
            )


def trend_figures(figures: Figures, studies: int) -> None:
    """Doses without a trend must not be claimed to have one. Page's test is told beside it."""
    for seeds in (3, 5, 8):
        for mix in (Mix(1, 0, 0), Mix(0.5, 0.5, 0)):
            rng = np.random.default_rng(7)
            parts = mix.variances(seeds, TREND_PROMPTS)
            doses = normal_arms(rng, parts, studies, len(DOSES), seeds, TREND_PROMPTS)
            wrong = [slope(study, DOSES).p_value < ALPHA for study in doses]
            figures.add(
                f"trend/{mix.name}/{seeds}-seeds/false-claims",
                float(np.mean(wrong)),
                "share",
                at_most=allowed(ALPHA, studies),
            )
            page = [ordered(study.mean(-1).T) < ALPHA for study in doses[:PAGE_STUDIES]]
            figures.add(f"trend/{mix.name}/{seeds}-seeds/page", float(np.mean(page)), "share")
