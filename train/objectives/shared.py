"""What the objectives share: shapes, refusals, thresholding."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curate.base.errors import ConfigError


def per_picture(numbers: Tensor, like: Tensor) -> Tensor:
    """(B,) numbers as (B, 1, 1, 1), in the dtype of the pictures `like`."""
    return numbers.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def thresholding_options(objective: str, sampler: str, able: bool, wanted: bool) -> dict[str, Any]:
    """Arguments of a diffusers scheduler that thresholds dynamically, if `wanted`.

    Imagen's dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3): of pictures
    in -1..1, never of latents. diffusers' own bound on the percentile is 1, at which it is no more
    than clipping; here it has none to speak of, as in the paper.

    Raises:
        ConfigError: this scheduler is not `able` to.
    """
    if not wanted:
        return {}
    if not able:
        raise ConfigError(
            f"sampler {sampler!r} of objective {objective} has no thresholding; take another."
        )
    return {"thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1000.0}
