"""Diffusion over a thousand steps, with diffusers' schedules: epsilon, v or the picture.

x_t = a_t x_0 + s_t noise      a_t^2 = alphas_cumprod[t], a_t^2 + s_t^2 = 1   (Ho et al. 2020)
v_t = a_t noise - s_t x_0      so x_0 = a_t x_t - s_t v_t                 (Salimans & Ho 2022)
SNR = a_t^2 / s_t^2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from curate.base.errors import ConfigError
from train.objectives.shared import per_picture, thresholding_options
from train.samplers import DDPM_STEPS, refuse_sampler
from train.settings import TrainSettings

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

_SCHEDULES: dict[str, dict[str, Any]] = {
    # Betas of Ho et al. 2020 (PixArt's too) and of Stable Diffusion 1, 2 and XL.
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid", "beta_start": 0.0001, "beta_end": 0.02},
}


class DDPM:
    """DDPM after the settings; times `t` (B,) are int64 steps, 0 to 999, and 999 is noise."""

    def __init__(self, settings: TrainSettings) -> None:
        """
        Raises:
            ConfigError: a network is to find the noise in nothing but noise.
        """
        from diffusers import DDPMScheduler

        self.prediction = settings.prediction_type
        if settings.zero_terminal_snr and self.prediction == "epsilon":
            raise ConfigError(
                "zero_terminal_snr needs prediction_type v_prediction or sample: where all is "
                "noise, epsilon tells nothing of the picture."
            )
        self._schedule = {
            **_SCHEDULES[settings.noise_schedule],
            "num_train_timesteps": DDPM_STEPS,
            "rescale_betas_zero_snr": settings.zero_terminal_snr,
        }
        stepped = DDPMScheduler(**self._schedule)
        if settings.noise_schedule == "sigmoid":
            # The other schedulers know no sigmoid, but take betas as numbers.
            plain = DDPMScheduler(**{**self._schedule, "rescale_betas_zero_snr": False})
            del self._schedule["beta_schedule"]
            self._schedule["trained_betas"] = plain.betas.tolist()
        kept = stepped.alphas_cumprod.double()
        snr = kept / (1 - kept)
        weight = min_snr_weights(snr, settings.snr_gamma, self.prediction)
        # Rows: a_t, s_t, weight. Moved once to each device that asks.
        table = torch.stack([kept.sqrt(), (1 - kept).sqrt(), weight]).float()
        self._tables = {table.device: table}

    def _at(self, t: Tensor) -> Tensor:
        """a_t, s_t and the weight of steps `t` (B,): (3, B) float32."""
        if t.device not in self._tables:
            self._tables[t.device] = self._tables[torch.device("cpu")].to(t.device)
        return self._tables[t.device][:, t]

    def times(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """Uniform steps, from row 1 of `uniform` (2, B)."""
        return (uniform[1] * DDPM_STEPS).long().clamp(max=DDPM_STEPS - 1)

    def stratified_times(self, count: int) -> Tensor:
        """Steps in the middles of `count` equal parts."""
        return ((torch.arange(count) + 0.5) * DDPM_STEPS / count).long()

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """a_t x0 + s_t noise."""
        a, s, _ = self._at(t)
        return per_picture(a, x0) * x0 + per_picture(s, x0) * noise

    def model_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t itself."""
        return x_t

    def model_time(self, t: Tensor) -> Tensor:
        """The step."""
        return t.float()

    def loss(self, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Mean squared error of each picture (B,) in what is predicted, by its min-SNR weight."""
        a, s, weight = self._at(t)
        target = noise
        if self.prediction == "sample":
            target = x0
        elif self.prediction == "v_prediction":
            target = per_picture(a, x0) * noise - per_picture(s, x0) * x0
        error = (output.float() - target.float()).square().flatten(1).mean(dim=1)
        return error * weight

    def predicted_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The output itself, a_t x_t - s_t v, or (x_t - s_t epsilon) / a_t."""
        if self.prediction == "sample":
            return output
        a, s, _ = self._at(t)
        a, s = per_picture(a, x_t), per_picture(s, x_t)
        if self.prediction == "v_prediction":
            return a * x_t - s * output
        return (x_t - s * output) / a

    def scheduler(self, sampler: str, shift: float, thresholding: bool = False) -> SchedulerMixin:
        """DDIM ("euler" is the same), ancestral DDPM, or second-order DPM-Solver++.

        All start at step 999, where training ends ("trailing"; Lin et al. 2023, arXiv 2305.08891,
        section 3.3): with zero terminal SNR nothing else is right. The published Stable Diffusion
        1, 2 and XL are shipped with "leading" and an offset of 1, which never visits the last
        steps, and PixArt with "linspace", which starts at 999 too.

        Args:
            shift: of no meaning here.

        Raises:
            ConfigError: there is no such sampler.
        """
        from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

        refuse_sampler("ddpm", sampler)
        options = {
            **self._schedule,
            "prediction_type": self.prediction,
            "timestep_spacing": "trailing",
            "steps_offset": 1,  # of no meaning with "trailing"; SD's pipelines warn at another
            **thresholding_options("ddpm", sampler, True, thresholding),
        }
        if sampler == "dpm++":
            if self._schedule.get("beta_schedule") == "squaredcos_cap_v2":
                # The cosine ends in almost no signal, by which epsilon is divided.
                options["lambda_min_clipped"] = -5.1
            return DPMSolverMultistepScheduler(solver_order=2, **options)
        chosen = DDPMScheduler if sampler == "ddpm" else DDIMScheduler
        return chosen(clip_sample=False, **options)  # latents exceed 1


def min_snr_weights(snr: Tensor, gamma: float | None, prediction: str) -> Tensor:
    """Weights of each step's squared error, in what the network predicts.

    min(SNR, gamma) on the picture's error (Hang et al. 2023, arXiv 2303.09556, section 3.4),
    which is min(SNR, gamma) / SNR on epsilon's and min(SNR, gamma) / (SNR + 1) on v's. Where SNR
    is 0 the formula would leave the step untrained that every sampler takes first: 1 there.

    Args:
        snr: (DDPM_STEPS,) float64.
        gamma: None = no weights.
    """
    if gamma is None:
        return torch.ones_like(snr)
    weight = snr.clamp(max=gamma)
    if prediction == "epsilon":
        weight = weight / snr
    elif prediction == "v_prediction":
        weight = weight / (snr + 1)
    return torch.where(snr == 0, 1.0, weight)
