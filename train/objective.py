"""Rectified flow: the path between picture and noise, what a network predicts, and its loss.

    x_t = (1 - t) x_0 + t noise        t = 0 is the picture, t = 1 is pure noise
    v   = dx_t/dt = noise - x_0        (Liu et al. 2022, arXiv 2209.03003, eq. 1)
    x_t - x_0 = t v                    so a prediction of x_0 or of v gives the other

All functions are pure. Pictures are (B, C, H, W) in [-1, 1], timesteps (B,) in (0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def noised(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point x_t (B, C, H, W) at time `t` (B,) on the straight path from x0 to noise."""
    return torch.lerp(x0, noise, _per_picture(t, x0))


def predicted_x0(output: Tensor, x_t: Tensor, t: Tensor, prediction: str) -> Tensor:
    """The picture (B, C, H, W) that a network's output stands for.

    Args:
        prediction: "x0" (the output is the picture) or "velocity" (x_0 = x_t - t v).
    """
    if prediction == "x0":
        return output
    return x_t - _per_picture(t, x_t) * output


def predicted_velocity(output: Tensor, x_t: Tensor, t: Tensor, prediction: str) -> Tensor:
    """The velocity dx_t/dt (B, C, H, W) that a network's output stands for; t must not be 0."""
    if prediction == "velocity":
        return output
    return (x_t - output) / _per_picture(t, x_t)


def loss_per_picture(
    output: Tensor, x0: Tensor, noise: Tensor, t: Tensor, prediction: str, weighting: str
) -> Tensor:
    """Mean squared error of each picture (B,), in float32.

    With `weighting` "x0" this is |x0_hat - x0|^2, which spends the network on high noise, where
    the text decides what is drawn; with "velocity" it is |v_hat - v|^2 = |x0_hat - x0|^2 / t^2,
    the usual flow-matching loss, which spends it on fine detail.
    """
    target = x0 if prediction == "x0" else noise - x0
    error = (output.float() - target.float()).square().mean(dim=(1, 2, 3))
    if prediction == weighting:
        return error
    if weighting == "velocity":
        # Below t = 0.05 the weight would exceed 400 and a single picture rule the step.
        return error / t.float().clamp(min=0.05).square()
    return error * t.float().square()


def logit_normal_timesteps(
    normal: Tensor, uniform: Tensor, mean: float, std: float, uniform_share: float
) -> Tensor:
    """Timesteps (B,) in (0, 1): logit-normal, with a share that is uniform.

    Logit-normal sampling is from Esser et al. 2024 (arXiv 2403.03206, section 3.1). The uniform
    share covers the low noise that a logit-normal with a high mean hardly visits.

    Args:
        normal: (B,) standard normal numbers.
        uniform: (2, B) numbers in [0, 1): row 0 decides which timesteps are uniform, row 1 is
            their value. Handing in the numbers keeps the function pure.
    """
    t = torch.where(uniform[0] < uniform_share, uniform[1], torch.sigmoid(mean + std * normal))
    return t.clamp(1e-4, 1 - 1e-4)


def sampling_timesteps(steps: int, shift: float) -> Tensor:
    """Timesteps (steps + 1,) from almost 1 down to 0, float64, shifted towards noise.

    t' = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23). The first is the shifted 0.999
    and the grid is even before the shift, which is what diffusers' DPMSolverMultistepScheduler
    with `use_flow_sigmas` does, so that an exported model is sampled at the same times.
    """
    t = 1 - torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
    return (shift * t / (1 + (shift - 1) * t)).flip(0)


def euler_step(x_t: Tensor, x0: Tensor, t: float, t_next: float) -> Tensor:
    """x at `t_next`, along the straight line through x_t and the predicted picture x0.

    x_t + (t_next - t) v with v = (x_t - x0) / t; equals first-order DPM-Solver++ on this path.
    """
    return x0 + (t_next / t) * (x_t - x0)


def _per_picture(t: Tensor, like: Tensor) -> Tensor:
    return t.to(like.dtype).view(-1, 1, 1, 1)
