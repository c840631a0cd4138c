"""Draw pictures from prompts: the objective's scheduler drives the network, with guidance.

The loop is that of the family's own diffusers pipeline, and the scheduler is the object that is
exported, so an exported pipeline draws the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import ConfigError
from curate.base.settings import nearest
from train.protocols import TextFeatures
from train.samplers import refuse_sampling_steps

if TYPE_CHECKING:
    from train.model import Trained
    from train.settings import TrainSettings

_LINEAR_SIGMAS = ("FluxPipeline", "Flux2Pipeline", "QwenImagePipeline")
"""Pipelines that tell a flow scheduler its times: 1, ..., 1 / steps before the shift."""
_SCALED_NOISE = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
)
"""Pipelines that scale the first noise as their scheduler says; flow's Euler says nothing."""


def generate(
    run_or_model: Trained | Path | str,
    prompts: Sequence[str],
    seed: int = 0,
    guidance_scale: float | None = None,
    steps: int | None = None,
    shift: float | None = None,
    batch_size: int = 64,
    negative_prompts: Sequence[str] | None = None,
    sampler: str | None = None,
    thresholding: bool = False,
    conditions: Mapping[str, float] | None = None,
    height: int | None = None,
    width: int | None = None,
    noise_keys: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """One picture a prompt: uint8 (N, H, W, 3), sRGB.

    The noise of prompt i comes from a generator seeded with noise_keys[i] alone, that of a
    stochastic sampler's steps included, so a picture does not hang on the batch size (but for the
    last bits of floating point) nor on the other prompts. Cost: 2 * steps evaluations of the
    network a picture; half of it where the scale is 1 or the network itself reads the scale.

    Args:
        guidance_scale, steps, shift, sampler: None = as the run's settings say.
        negative_prompts: what guidance leads away from, one a prompt; None = the empty caption.
        thresholding: the predicted picture is cut to its 99.5% quantile at each step (Saharia et
            al. 2022, arXiv 2205.11487, section 2.3), where the sampler can.
        conditions: score column -> what is asked for: a quantile of the training pictures (float
            in 0..1) or a bucket (int from 1). Scores that are not named are left unsaid.
        height, width: pixels; None = the model's square.
        noise_keys: int64 or uint64, one a prompt; None = seed + i.

    Raises:
        ConfigError: there is no such sampler or condition, it cannot take so many steps, or the
            size does not fit the model.
    """
    trained = run_or_model
    if isinstance(trained, (str, Path)):
        from train.assemble import load_trained

        trained = load_trained(trained)
    settings, side = trained.settings, trained.config.resolution
    steps = settings.sampling_steps if steps is None else steps
    refuse_sampling_steps(settings.objective, steps)
    height, width = height or side, width or side
    keys = range(seed, seed + len(prompts)) if noise_keys is None else noise_keys
    for what, own in (("negative prompts", negative_prompts), ("noise keys", keys)):
        if own is not None and len(own) != len(prompts):
            raise ConfigError(
                f"There are {len(own)} {what} for {len(prompts)} prompts; give one each."
            )
    asked = asked_buckets(settings, conditions or {})
    shape = latent_shape(trained, height, width)
    drawing = Drawing(
        trained,
        settings.guidance_scale if guidance_scale is None else guidance_scale,
        steps,
        scheduler_of(trained, sampler, shift, thresholding),
    )
    parts = [np.empty((0, height, width, 3), np.uint8)]
    for start in range(0, len(prompts), batch_size):
        rows = range(start, min(start + batch_size, len(prompts)))
        generators = [torch.Generator().manual_seed(int(keys[i])) for i in rows]
        pictures = drawing.draw(
            [prompts[i] for i in rows],
            [negative_prompts[i] if negative_prompts else "" for i in rows],
            torch.stack([torch.randn(shape, generator=each) for each in generators]),
            generators,
            size_ids=torch.tensor([[height, width, 0, 0, height, width]] * len(rows)).float(),
            conditions=asked.expand(len(rows), -1),
        )
        parts.append(to_uint8(pictures))
    return np.concatenate(parts)


def scheduler_of(
    trained: Trained,
    sampler: str | None = None,
    shift: float | None = None,
    thresholding: bool = False,
) -> Any:
    """diffusers' scheduler that samples `trained`, in its pipeline too; None = as the run says.

    Raises:
        ConfigError: the run's objective has no such sampler.
    """
    from diffusers import DPMSolverMultistepScheduler

    settings = trained.settings
    if shift is None:
        shift = settings.sampling_shift or settings.discrete_flow_shift
    own = trained.model.objective.scheduler(sampler or settings.sampler, shift, thresholding)
    if trained.model.backbone.pipeline not in _SCALED_NOISE or hasattr(own, "init_noise_sigma"):
        return own
    # First-order DPM-Solver++ on this path is the Euler step.
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        solver_order=1,
        final_sigmas_type="zero",
    )


def asked_buckets(settings: TrainSettings, conditions: Mapping[str, float]) -> Tensor:
    """(1, n) int64 buckets of the run's conditions, from 1; 0 = not asked for.

    Raises:
        ConfigError: the run has no such condition, or no such bucket.
    """
    columns, buckets = settings.condition_on, settings.condition_buckets
    row = [0] * len(columns)
    for name, value in conditions.items():
        if name not in columns:
            raise ConfigError(
                f"The model is not told {name!r}; {nearest(name, list(columns))}"
                if columns
                else f"The model is not told {name!r}: it was trained without condition_on."
            )
        is_bucket = isinstance(value, int)
        if not (1 <= value <= buckets if is_bucket else 0 <= value <= 1):
            raise ConfigError(
                f"{name} can be asked for as a quantile from 0.0 to 1.0 or as a bucket from 1 to "
                f"{buckets}, not as {value!r}."
            )
        bucket = int(value) if is_bucket else min(int(value * buckets) + 1, buckets)
        row[columns.index(name)] = bucket
    return torch.tensor([row], dtype=torch.int64)


def latent_shape(trained: Trained, height: int, width: int) -> tuple[int, int, int]:
    """Shape (C, h, w) of one picture of height x width pixels in the model's space.

    Raises:
        ConfigError: the autoencoder or the network's patches cannot cut such a picture.
    """
    latents, backbone = trained.model.latents, trained.model.backbone
    unit = latents.factor * backbone.row.divisor(backbone.config)
    if height % unit or width % unit:
        raise ConfigError(
            f"Height and width must be multiples of {unit} pixels for this model, not {height} and "
            f"{width}."
        )
    return latents.channels, height // latents.factor, width // latents.factor


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn: a model, its scheduler, steps and guidance."""

    trained: Trained
    guidance_scale: float
    steps: int
    scheduler: Any

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        noise: Tensor,
        generators: list[torch.Generator],
        size_ids: Tensor,
        conditions: Tensor,
    ) -> Tensor:
        """Pictures (B, 3, H, W) float32, about -1..1, from noise (B, C, h, w).

        Guidance is Ho and Salimans 2022 (arXiv 2207.12598), on what the network puts out: empty +
        scale * (caption - empty). A network with a guidance embedding reads the scale instead.
        """
        model, device, dtype = self.trained.model, self.trained.device, self.trained.dtype
        scale = self.guidance_scale
        reads_scale = bool(model.backbone.config.get("guidance_embeds"))
        network = partial(model.backbone, guidance=scale) if reads_scale else model
        guided = scale != 1 and not reads_scale
        # Empty ones first, as in the pipelines.
        text = encoded(self.trained, [*negative_prompts, *prompts] if guided else prompts)
        copies = 2 if guided else 1
        size_ids = size_ids.to(device).repeat(copies, 1)
        if model.conditions is not None:
            # What guidance leads away from is told no score.
            away = torch.zeros_like(conditions)
            told = torch.cat([away, conditions]) if guided else conditions
            text = model.conditions(text, told.to(device))
        scheduler = self.scheduler
        timesteps = self._timesteps()
        with_generator = "generator" in signature(scheduler.step).parameters
        extra = {"generator": generators} if with_generator else {}
        x = noise.to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
        with model.backbone.reading_text_once():
            for t in timesteps:
                x_in = x.repeat(copies, 1, 1, 1)
                if hasattr(scheduler, "scale_model_input"):
                    x_in = scheduler.scale_model_input(x_in, t)
                times = t.float().expand(len(x_in)).to(device)
                output = network(x_in.to(dtype), times, text, size_ids).float()
                if guided:
                    empty, captioned = output.chunk(2)
                    output = empty + scale * (captioned - empty)
                x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
        return model.latents.decode(x).float()

    def _timesteps(self) -> Tensor:
        """The scheduler's timesteps, set as the model's pipeline sets them."""
        own = not self.scheduler.config.get("use_flow_sigmas", False)
        if own and self.trained.model.backbone.pipeline in _LINEAR_SIGMAS:
            sigmas = np.linspace(1.0, 1 / self.steps, self.steps)
            self.scheduler.set_timesteps(sigmas=sigmas, device=self.trained.device)
        else:
            self.scheduler.set_timesteps(self.steps, device=self.trained.device)
        timesteps: Tensor = self.scheduler.timesteps
        return timesteps


def encoded(trained: Trained, texts: Sequence[str]) -> TextFeatures:
    """Features of `texts` on the model's device, in its dtype; equal texts are encoded once."""
    different = list(dict.fromkeys(texts))
    tokens = trained.model.without_padding(trained.model.text.tokenize(different))
    features = trained.model.text({name: t.to(trained.device) for name, t in tokens.items()})
    rows = torch.tensor([different.index(text) for text in texts], device=trained.device)
    return replace(
        features,
        sequence=features.sequence[rows].to(trained.dtype),
        mask=features.mask[rows].to(trained.dtype),
        pooled=None if features.pooled is None else features.pooled[rows].to(trained.dtype),
    )


def to_uint8(pictures: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in -1..1 to uint8 (N, H, W, 3); what lies outside is clipped."""
    levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def from_uint8(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1
