"""Rectified flow: the path between picture and noise, what a network predicts, and its loss.

x_t = (1 - t) x_0 + t noise        t = 0 is the picture, t = 1 is pure noise
v   = dx_t/dt = noise - x_0        (Liu et al. 2022, arXiv 2209.03003, eq. 1)
x_t - x_0 = t v                    so a prediction of x_0 or of v gives the other
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from train.objectives.shared import per_picture, thresholding_options
from train.samplers import refuse_sampler
from train.settings import TrainSettings

if TYPE_CHECKING:
    from diffusers import SchedulerMixin


class Flow:
    """Rectified flow after the settings; times `t` (B,) lie in (0, 1)."""

    def __init__(self, settings: TrainSettings) -> None:
        self.prediction = settings.prediction_type
        weighting = settings.loss_weighting
        self.weighting = self.prediction if weighting == "none" else weighting
        self.uniform_share = settings.timestep_uniform_share
        if settings.timestep_sampling == "uniform":
            self.uniform_share = 1.0
        self.mean, self.std = settings.timestep_mean, settings.timestep_std
        self.shift = settings.discrete_flow_shift

    def times(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """Logit-normal times, with a share that is uniform, shifted towards noise.

        Logit-normal sampling and the shift are from Esser et al. 2024 (arXiv 2403.03206, section
        3.1 and eq. 23). The uniform share covers the low noise that a logit-normal with a high
        mean hardly visits.

        Args:
            normal: (B,) standard normal numbers.
            uniform: (2, B) numbers in [0, 1): row 0 decides which times are uniform, row 1 is
                their value.
        """
        logit_normal = torch.sigmoid(self.mean + self.std * normal)
        t = torch.where(uniform[0] < self.uniform_share, uniform[1], logit_normal)
        return shifted(t.clamp(1e-4, 1 - 1e-4), self.shift)

    def stratified_times(self, count: int) -> Tensor:
        """(i + 0.5) / count, whatever the training times are."""
        return (torch.arange(count) + 0.5) / count

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The point x_t (B, C, h, w) on the straight path from x0 to noise."""
        return torch.lerp(x0, noise, per_picture(t, x0))

    def model_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t itself."""
        return x_t

    def model_time(self, t: Tensor) -> Tensor:
        """1000 t, as all of diffusers' flow pipelines count."""
        return t.float() * 1000

    def loss(self, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean squared error of each picture (B,), in float32.

        With `loss_weighting` "sample" this is |x0_hat - x0|^2, which spends the network on high
        noise, where the text decides what is drawn; with "velocity" it is |v_hat - v|^2 =
        |x0_hat - x0|^2 / t^2, the usual flow-matching loss, which spends it on fine detail.
        """
        target = x0 if self.prediction == "sample" else noise - x0
        error = (output.float() - target.float()).square().flatten(1).mean(dim=1)
        if self.prediction == self.weighting:
            return error
        if self.weighting == "velocity":
            # Below t = 0.05 the weight would exceed 400 and a single picture rule the step.
            return error / t.float().clamp(min=0.05).square()
        return error * t.float().square()

    def predicted_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The output itself, or x_t - t v."""
        if self.prediction == "sample":
            return output
        return x_t - per_picture(t, x_t) * output

    def scheduler(self, sampler: str, shift: float, thresholding: bool = False) -> SchedulerMixin:
        """Euler steps along the flow, or second-order DPM-Solver++ over the same times.

        diffusers' flow-matching Euler knows velocities alone. For a network that predicts the
        picture, first-order DPM-Solver++ is the same step; it has times of its own (whole
        thousandths of an even grid from 0.999, before the shift).

        Args:
            shift: of the sampling times, towards noise.

        Raises:
            ConfigError: there is no such sampler, or it has no thresholding.
        """
        from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

        refuse_sampler("flow", sampler)
        by_euler = sampler == "euler" and self.prediction == "velocity"
        options = thresholding_options("flow", sampler, not by_euler, thresholding)
        if by_euler:
            return FlowMatchEulerDiscreteScheduler(shift=shift)
        return DPMSolverMultistepScheduler(
            prediction_type="sample" if self.prediction == "sample" else "flow_prediction",
            use_flow_sigmas=True,
            flow_shift=shift,
            solver_order=1 if sampler == "euler" else 2,
            algorithm_type="dpmsolver++",
            final_sigmas_type="zero",
            **options,
        )


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times moved towards noise: s t / (1 + (s - 1) t)."""
    return shift * t / (1 + (shift - 1) * t)
