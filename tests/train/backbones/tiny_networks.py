"""The smallest network of every family, with random weights throughout."""

import torch

from train.backbones import ROWS, DiffusersBackbone, build_backbone
from train.model_settings import ModelConfig

TEXT_WIDTH, POOLED_WIDTH, SIDE = 16, 12, 8

_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}
_UNET = {
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 8,
}
TINY = {
    "pixart": ("pixart", {**_HEADS, "out_channels": 8}),
    # Sizes are embedded in thirds of the width; their pipeline asks for a sample_size of 128.
    "pixart-sized": (
        "pixart",
        {**_HEADS, "attention_head_dim": 18, "sample_size": 128, "use_additional_conditions": True},
    ),
    "unet": ("unet", _UNET),
    "unet-xl": (
        "unet",
        {**_UNET, "addition_embed_type": "text_time", "addition_time_embed_dim": 8},
    ),
    "sd3": ("sd3", _HEADS),
    "sana": (
        "sana",
        {**_HEADS, "num_cross_attention_heads": 2, "cross_attention_head_dim": 16},
    ),
    "prx": ("prx", {"hidden_size": 32, "num_heads": 2, "depth": 2}),
    "flux": ("flux", {**_HEADS, "num_single_layers": 2}),
    "flux-told": ("flux", {**_HEADS, "num_single_layers": 1, "guidance_embeds": True}),
    "flux2": ("flux2", {**_HEADS, "num_single_layers": 2}),
    "qwen-image": ("qwen-image", _HEADS),
    "z-image": ("z-image", {"dim": 32, "n_heads": 2, "n_layers": 2, "n_refiner_layers": 1}),
}
assert {kind for kind, _ in TINY.values()} == set(ROWS)


def tiny_config(name: str, **config: object) -> ModelConfig:
    """Latents of a side of 8, as of an autoencoder of factor 8 at 64 px."""
    kind, own = TINY[name]
    return ModelConfig.model_validate(
        {
            "resolution": 8 * SIDE,
            "latents": {"kind": "autoencoder"},
            "backbone": {"kind": kind, "config": {**own, **config}},
        }
    )


def pooled_width(name: str) -> int:
    """Of the pooled text that the network reads; 0 = none."""
    return POOLED_WIDTH if name in ("unet-xl", "sd3", "flux", "flux-told") else 0


def tiny_backbone(name: str, seed: int = 0) -> DiffusersBackbone:
    """Random in every weight: from nothing, outputs are 0."""
    backbone = build_backbone(tiny_config(name), TEXT_WIDTH, pooled_width(name), 4, seed, factor=8)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return backbone
