"""How pictures become noise and what a network is asked about it: flow, DDPM or EDM."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.protocols import Objective
    from train.settings import TrainSettings


def build_objective(settings: TrainSettings) -> Objective:
    """The objective that `settings.objective` names.

    Raises:
        ConfigError: its settings contradict each other.
    """
    if settings.objective == "flow":
        from train.objectives.flow import Flow

        return Flow(settings)
    if settings.objective == "ddpm":
        from train.objectives.ddpm import DDPM

        return DDPM(settings)
    from train.objectives.edm import EDM

    return EDM(settings)
