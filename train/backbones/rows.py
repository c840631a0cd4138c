"""The table of networks: what each family of diffusers' classes is called, told and made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from train.backbones import calls

Config = dict[str, Any]


@dataclass(frozen=True)
class Around:
    """What stands around a network and settles arguments of its class."""

    channels: int
    """Of a latent or picture."""
    side: int
    """Of a latent, in latents."""
    text_width: int
    pooled_width: int
    position_span: float | None = None


@dataclass(frozen=True)
class Row:
    """One family of networks."""

    network: str
    """diffusers' class."""
    pipeline: str
    """diffusers' pipeline, into which it is exported."""
    call: Callable[[Any, calls.Inputs], Tensor]
    text: str
    """Argument that is the width of the text sequence."""
    settled: Callable[[Config, Around], Config] = lambda config, around: {}
    """Arguments that follow from what stands around the network and from other arguments."""
    usual: Callable[[Config], Config] = lambda config: {}
    """Arguments in place of the class's defaults."""
    channels: str = "in_channels"
    """Argument that is the channels of x, times `packing`."""
    pooled: str | None = None
    """Argument that is the width of the pooled text; None = it is not read."""
    blocks: tuple[str, ...] = ("transformer_blocks",)
    """Module lists of the repeated blocks, in order."""
    part: str = "transformer"
    """Name of the network in the pipeline's folder."""
    packing: int = 1
    """Latents of one channel that are one input channel: 4 = 2 x 2 of them."""
    masked: bool = False
    """The text's mask is read; else padding is seen."""
    reads_sizes: Callable[[Mapping[str, Any]], bool] = lambda config: False
    """Whether a network of these arguments reads the picture's size as well: size ids are given."""
    sized_pipeline: str = ""
    """The pipeline that tells the size."""

    reads_text: tuple[str, ...] = ()
    """Ends of names of layers that see the text alone, at every step of sampling the same."""

    def pipeline_of(self, config: Mapping[str, Any]) -> str:
        """diffusers' pipeline of a network of these arguments."""
        return self.sized_pipeline if self.reads_sizes(config) else self.pipeline

    def divisor(self, config: Mapping[str, Any]) -> int:
        """What height and width of x must be multiples of."""
        if self.part == "unet":
            return int(2 ** (len(config["block_out_channels"]) - 1))
        return 2 if self.packing == 4 else int(config.get("patch_size", 2))


def _width(config: Config) -> int:
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def _rope(head: int) -> list[int]:
    """Rotary channels of index, row and column in Flux's proportion, (16, 56, 56) of 128."""
    axis = 2 * (head * 7 // 32)
    return [head - 2 * axis, axis, axis]


def _pixart(config: Config, around: Around) -> Config:
    settled: Config = {
        "out_channels": around.channels,
        "cross_attention_dim": _width(config),
        "sample_size": around.side,
    }
    if around.position_span is not None:
        patches = around.side // config["patch_size"]
        settled["interpolation_scale"] = patches / around.position_span
    return settled


def _pixart_reads_sizes(config: Mapping[str, Any]) -> bool:
    asked = config["use_additional_conditions"]
    return config["sample_size"] == 128 if asked is None else bool(asked)


def _unet_reads_sizes(config: Mapping[str, Any]) -> bool:
    return bool(config["addition_embed_type"] == "text_time")


def _unet(config: Config, around: Around) -> Config:
    settled: Config = {"out_channels": around.channels, "sample_size": around.side}
    if _unet_reads_sizes(config):
        sizes = 6 * config["addition_time_embed_dim"]
        settled["projection_class_embeddings_input_dim"] = around.pooled_width + sizes
    return settled


def _sd3(config: Config, around: Around) -> Config:
    return {
        "out_channels": around.channels,
        "caption_projection_dim": _width(config),
        "sample_size": around.side,
        "pos_embed_max_size": max(
            config["pos_embed_max_size"], around.side // config["patch_size"]
        ),
    }


def _sana(config: Config, around: Around) -> Config:
    return {
        "out_channels": around.channels,
        "cross_attention_dim": _width(config),
        "sample_size": around.side,
    }


def _prx_axes(config: Config) -> Config:
    head = config["hidden_size"] // config["num_heads"]
    return {"axes_dim": [head // 2, head - head // 2]}


def _flux_axes(config: Config) -> Config:
    return {"axes_dims_rope": _rope(config["attention_head_dim"])}


def _flux2_axes(config: Config) -> Config:
    return {"axes_dims_rope": [config["attention_head_dim"] // 4] * 4}


def _z_image_axes(config: Config) -> Config:
    # Axes (32, 48, 48) of 128 in the published network.
    head = config["dim"] // config["n_heads"]
    axis = 2 * (head * 3 // 16)
    return {"axes_dims": [head - 2 * axis, axis, axis], "n_kv_heads": config["n_heads"]}


ROWS: dict[str, Row] = {
    "pixart": Row(
        network="PixArtTransformer2DModel",
        pipeline="PixArtSigmaPipeline",
        call=calls.call_pixart,
        settled=_pixart,
        # diffusers would ask for size conditions at sample_size 128.
        usual=lambda config: {"use_additional_conditions": False},
        text="caption_channels",
        masked=True,
        reads_sizes=_pixart_reads_sizes,
        sized_pipeline="PixArtAlphaPipeline",
        reads_text=("caption_projection", "attn2.to_k", "attn2.to_v"),
    ),
    "unet": Row(
        network="UNet2DConditionModel",
        pipeline="StableDiffusionPipeline",
        call=calls.call_unet,
        settled=_unet,
        text="cross_attention_dim",
        blocks=("down_blocks", "mid_block", "up_blocks"),
        part="unet",
        reads_sizes=_unet_reads_sizes,
        sized_pipeline="StableDiffusionXLPipeline",
        reads_text=("attn2.to_k", "attn2.to_v"),
    ),
    "sd3": Row(
        network="SD3Transformer2DModel",
        pipeline="StableDiffusion3Pipeline",
        call=calls.call_sd3,
        settled=_sd3,
        text="joint_attention_dim",
        pooled="pooled_projection_dim",
    ),
    "sana": Row(
        network="SanaTransformer2DModel",
        pipeline="SanaPipeline",
        call=calls.call_sana,
        settled=_sana,
        text="caption_channels",
        masked=True,
        reads_text=("caption_projection", "attn2.to_k", "attn2.to_v"),
    ),
    "prx": Row(
        network="PRXTransformer2DModel",
        pipeline="PRXPipeline",
        call=calls.call_prx,
        usual=_prx_axes,
        text="context_in_dim",
        blocks=("blocks",),
        masked=True,
    ),
    "flux": Row(
        network="FluxTransformer2DModel",
        pipeline="FluxPipeline",
        call=calls.call_flux,
        usual=_flux_axes,
        text="joint_attention_dim",
        pooled="pooled_projection_dim",
        blocks=("transformer_blocks", "single_transformer_blocks"),
        packing=4,
    ),
    "flux2": Row(
        network="Flux2Transformer2DModel",
        pipeline="Flux2Pipeline",
        call=calls.call_flux2,
        usual=_flux2_axes,
        text="joint_attention_dim",
        blocks=("transformer_blocks", "single_transformer_blocks"),
        packing=4,
    ),
    "qwen-image": Row(
        network="QwenImageTransformer2DModel",
        pipeline="QwenImagePipeline",
        call=calls.call_qwen_image,
        settled=lambda config, around: {"out_channels": around.channels},
        usual=_flux_axes,
        text="joint_attention_dim",
        packing=4,
        masked=True,
    ),
    "z-image": Row(
        network="ZImageTransformer2DModel",
        pipeline="ZImagePipeline",
        call=calls.call_z_image,
        usual=_z_image_axes,
        text="cap_feat_dim",
        blocks=("noise_refiner", "context_refiner", "layers"),
        masked=True,
    ),
}
