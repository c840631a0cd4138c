"""EDM: noise levels rather than steps, and a network that is preconditioned.

    x = x_0 + sigma noise
    D(x) = c_skip x + c_out F(c_in x, c_noise)             (Karras et al. 2022, arXiv 2206.00364)
    c_skip = sd^2 / (sigma^2 + sd^2)      c_out   = sigma sd / sqrt(sigma^2 + sd^2)
    c_in   = 1 / sqrt(sigma^2 + sd^2)     c_noise = ln(sigma) / 4            (sd = sigma_data)

diffusers' EDM schedulers do all of it around the network: `scale_model_input` multiplies by c_in,
`timesteps` are c_noise, and `step` makes D of the output.
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

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0  # of sampling, Table 1


class EDM:
    """EDM after the settings; times `t` (B,) are sigma."""

    def __init__(self, settings: TrainSettings) -> None:
        self.mean, self.std = settings.timestep_mean, settings.timestep_std
        self.sigma_data = settings.sigma_data

    def times(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """Log-normal sigma, from `normal` (B,)."""
        return torch.exp(self.mean + self.std * normal)

    def stratified_times(self, count: int) -> Tensor:
        """The sigmas of a sampler's schedule (eq. 5), in the middles of `count` equal parts."""
        ramp = (torch.arange(count) + 0.5) / count
        low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
        return (low + ramp * (high - low)) ** RHO

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x0 + sigma noise."""
        return x0 + per_picture(t, x0) * noise

    def model_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """c_in x."""
        return x_t * per_picture((t.square() + self.sigma_data**2).rsqrt(), x_t)

    def model_time(self, t: Tensor) -> Tensor:
        """c_noise."""
        return 0.25 * t.float().log()

    def loss(self, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean squared error of each picture (B,), by lambda(sigma) = 1 / c_out^2.

        That is the plain squared error of F against (x_0 - c_skip x) / c_out (eq. 8).
        """
        skip, out = self._skip_and_out(t, x_t)
        target = (x0 - skip * x_t) / out
        return (output.float() - target.float()).square().flatten(1).mean(dim=1)

    def predicted_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """D(x)."""
        skip, out = self._skip_and_out(t, x_t)
        return skip * x_t + out * output

    def _skip_and_out(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        total = t.square() + self.sigma_data**2
        skip, out = self.sigma_data**2 / total, t * self.sigma_data * total.rsqrt()
        return per_picture(skip, like), per_picture(out, like)

    def scheduler(self, sampler: str, shift: float, thresholding: bool = False) -> SchedulerMixin:
        """Euler steps over Karras' sigmas, or second-order DPM-Solver++ over the same.

        Args:
            shift: of no meaning here.

        Raises:
            ConfigError: there is no such sampler, or it has no thresholding.
        """
        from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler

        refuse_sampler("edm", sampler)
        options = thresholding_options("edm", sampler, sampler == "dpm++", thresholding)
        options |= {
            "sigma_min": SIGMA_MIN,
            "sigma_max": SIGMA_MAX,
            "sigma_data": self.sigma_data,
            "rho": RHO,
            "prediction_type": "epsilon",  # diffusers' name for a positive c_out
        }
        if sampler == "euler":
            return EDMEulerScheduler(**options)
        return EDMDPMSolverMultistepScheduler(solver_order=2, **options)
