"""How each family's network is called: exactly as its diffusers pipeline calls it at sampling.

Every function takes diffusers' model and what it is asked, and returns the output (B, C, h, w).
Tests hold each against a recorded call of the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from train.protocols import TextFeatures


@dataclass(frozen=True)
class Inputs:
    """What a network is asked for B pictures."""

    x: Tensor
    """(B, C, h, w)."""
    time: Tensor
    """(B,) in the scheduler's units, 0 to 1000."""
    text: TextFeatures
    size_ids: Tensor | None
    """(B, 6), see Batch; for networks that are told sizes."""
    guidance: float
    """For networks that are told one: the scale that they were distilled to imitate."""


def call_pixart(inner: Any, given: Inputs) -> Tensor:
    """PixArt-alpha and -sigma; of a learned variance, the second half of the channels, no use."""
    sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if inner.use_additional_conditions:
        height_width = _needed(given.size_ids)[:, 4:6].to(given.text.sequence.dtype)
        sizes["resolution"] = height_width
        sizes["aspect_ratio"] = height_width[:, :1] / height_width[:, 1:]
    output = inner(
        given.x,
        encoder_hidden_states=given.text.sequence,
        encoder_attention_mask=given.text.mask,
        timestep=given.time,
        added_cond_kwargs=sizes,
        return_dict=False,
    )[0]
    return _mean(output, given.x)


def call_unet(inner: Any, given: Inputs) -> Tensor:
    """Stable Diffusion 1, 2 and XL. Padding is seen: these networks were trained without a mask."""
    added = None
    if inner.config.addition_embed_type == "text_time":
        sizes = _needed(given.size_ids).to(given.text.sequence.dtype)
        added = {"text_embeds": given.text.pooled, "time_ids": sizes}
    output: Tensor = inner(
        given.x,
        given.time,
        encoder_hidden_states=given.text.sequence,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]
    return output


def call_sd3(inner: Any, given: Inputs) -> Tensor:
    """Stable Diffusion 3 and 3.5; without a mask as well."""
    output: Tensor = inner(
        hidden_states=given.x,
        timestep=given.time,
        encoder_hidden_states=given.text.sequence,
        pooled_projections=given.text.pooled,
        return_dict=False,
    )[0]
    return output


def call_sana(inner: Any, given: Inputs) -> Tensor:
    """Sana."""
    output = inner(
        given.x,
        encoder_hidden_states=given.text.sequence,
        encoder_attention_mask=given.text.mask,
        timestep=given.time * inner.config.timestep_scale,
        return_dict=False,
    )[0]
    return _mean(output, given.x)


def call_prx(inner: Any, given: Inputs) -> Tensor:
    """PRX, of latents or pixels."""
    output: Tensor = inner(
        hidden_states=given.x,
        timestep=given.time / 1000,
        encoder_hidden_states=given.text.sequence,
        attention_mask=given.text.mask.bool(),
        return_dict=False,
    )[0]
    return output


def call_flux(inner: Any, given: Inputs) -> Tensor:
    """Flux 1: patches of 2 x 2 latents are tokens, with rows and columns as position ids."""
    height, width = given.x.shape[-2] // 2, given.x.shape[-1] // 2
    output = inner(
        hidden_states=_packed(given.x),
        timestep=given.time / 1000,
        guidance=_told(given) if inner.config.guidance_embeds else None,
        pooled_projections=given.text.pooled,
        encoder_hidden_states=given.text.sequence,
        txt_ids=given.x.new_zeros(given.text.sequence.shape[1], 3),
        img_ids=_grid(1, height, width, device=given.x.device).to(given.x.dtype),
        return_dict=False,
    )[0]
    return _unpacked(output, height, width)


def call_flux2(inner: Any, given: Inputs) -> Tensor:
    """Flux 2: as Flux 1, with ids of four axes (the last counts words) and no pooled text."""
    height, width = given.x.shape[-2] // 2, given.x.shape[-1] // 2
    words = given.text.sequence.shape[1]
    output = inner(
        hidden_states=_packed(given.x),
        timestep=given.time / 1000,
        guidance=_told(given),
        encoder_hidden_states=given.text.sequence,
        txt_ids=_grid(1, 1, 1, words, device=given.x.device).expand(len(given.x), -1, -1),
        img_ids=_grid(1, height, width, 1, device=given.x.device).expand(len(given.x), -1, -1),
        return_dict=False,
    )[0]
    return _unpacked(output, height, width)


def call_qwen_image(inner: Any, given: Inputs) -> Tensor:
    """Qwen-Image: tokens as in Flux, positions from the picture's shape."""
    height, width = given.x.shape[-2] // 2, given.x.shape[-1] // 2
    output = inner(
        hidden_states=_packed(given.x),
        timestep=given.time / 1000,
        encoder_hidden_states_mask=given.text.mask.bool(),
        encoder_hidden_states=given.text.sequence,
        img_shapes=[[(1, height, width)]] * len(given.x),
        return_dict=False,
    )[0]
    return _unpacked(output, height, width)


def call_z_image(inner: Any, given: Inputs) -> Tensor:
    """Z-Image: time and velocity run from noise to picture; texts have their own lengths."""
    texts = list(given.text.sequence.unbind())
    # On the meta device, where operations are counted, no mask has a value.
    if not given.text.mask.is_meta:
        texts = [row[seen] for row, seen in zip(texts, given.text.mask.bool(), strict=True)]
    output = inner(
        list(given.x.unsqueeze(2).unbind()),
        (1000 - given.time) / 1000,
        texts,
        return_dict=False,
    )[0]
    return -torch.stack(output).squeeze(2)


def _mean(output: Tensor, x: Tensor) -> Tensor:
    """The prediction alone, where a network also learned the variance (2 C channels)."""
    return output[:, : x.shape[1]] if output.shape[1] == 2 * x.shape[1] else output


def _needed(size_ids: Tensor | None) -> Tensor:
    if size_ids is None:
        raise ValueError("this backbone is told the picture's size; give size_ids")
    return size_ids


def _told(given: Inputs) -> Tensor:
    return torch.full((len(given.x),), given.guidance, device=given.x.device, dtype=torch.float32)


def _packed(x: Tensor) -> Tensor:
    """(B, h/2 * w/2, 4 C) from (B, C, h, w): channels, then the place in the patch."""
    return F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def _unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    patches = tokens.transpose(1, 2).unflatten(2, (height, width))
    return F.pixel_shuffle(patches, 2)


def _grid(*sizes: int, device: torch.device) -> Tensor:
    """(product of sizes, axes) int64: the indices of every place, the last axis fastest."""
    axes = [torch.arange(size, device=device) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
