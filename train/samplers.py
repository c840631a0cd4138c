"""Which samplers an objective has, and which numbers of steps diffusers' schedulers take."""

from __future__ import annotations

import math

from curate.base.errors import ConfigError

SAMPLERS = {
    "flow": ("euler", "dpm++"),
    "ddpm": ("euler", "ddim", "ddpm", "dpm++"),
    "edm": ("euler", "dpm++"),
}
"""Objective -> the samplers it has."""
DDPM_STEPS = 1000
"""Steps over which DDPM noises."""


def refuse_sampler(objective: str, sampler: str) -> None:
    """
    Raises:
        ConfigError: the objective has no such sampler.
    """
    if sampler not in SAMPLERS[objective]:
        raise ConfigError(
            f"objective {objective} has no sampler {sampler!r}; it has "
            f"{', '.join(SAMPLERS[objective])}."
        )


def refuse_sampling_steps(objective: str, steps: int) -> None:
    """
    Raises:
        ConfigError: diffusers' schedulers do not take that many steps. With trailing spacing they
            count down from 1,000 by the float 1000 / steps; where that is rounded down (61, 103,
            121 and 59 others) they take one step too many, at time -1, whose noise level is that
            of pure noise.
    """
    if steps < 1:
        raise ConfigError(f"A picture takes at least one sampler step, not {steps}.")
    if objective != "ddpm":
        return
    if steps > DDPM_STEPS:
        raise ConfigError(
            f"objective ddpm has {DDPM_STEPS:,} steps, so a sampler cannot take {steps:,}."
        )
    if not _trailing_fits(steps):
        near = (n for far in range(1, steps) for n in (steps - far, steps + far))
        other = next(n for n in near if _trailing_fits(n))
        raise ConfigError(
            f"diffusers' schedulers round {steps} sampler steps to {steps + 1} and spoil the last "
            f"one; take {other}."
        )


def _trailing_fits(steps: int) -> bool:
    return math.ceil(DDPM_STEPS / (DDPM_STEPS / steps)) == steps
