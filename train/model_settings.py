"""What a model is made of: the `model:` part of a preset."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from curate.base.settings import Settings


class BackboneConfig(Settings):
    """The network: a row of the table in train/backbones, and arguments of its class."""

    kind: str = Field("pixart", description="Row of the table: pixart, sd3, flux, sana, unet ...")
    config: dict[str, Any] = Field(
        {},
        description="Arguments of the diffusers class, over those of the source, for a network "
        "from nothing; with init_from those that lie with the weights hold.",
    )
    initial_gate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="adaLN gates of a network from nothing: 0 = the identity, as in DiT; 1 = "
        "plain residuals.",
    )
    position_span: float | None = Field(
        None,
        gt=0,
        description="Sin-cos positions run from 0 to this over the picture's side; null = patches.",
    )


class TextConfig(Settings):
    """One text encoder. Several are joined: CLIP's along channels, others along tokens."""

    kind: Literal["words", "clip", "t5", "decoder"] = Field(
        ...,
        description="words = a small T5 over whole words, made from nothing; clip = CLIP and "
        "OpenCLIP; t5 = encoders of the T5 kind; decoder = hidden states of a language model "
        "(Gemma, Qwen, Llama).",
    )
    name: str = Field("text_encoder", description="Its name in the pipeline's folder.")
    tokens: int = Field(77, gt=1, description="Token window, special tokens included.")
    layer: int = Field(
        -1, description="Hidden state: -1 = the last, after the final norm; -2 = the one before."
    )
    sequence: bool = Field(True, description="Its token features are read by the backbone.")
    pooled: bool = Field(False, description="Its pooled vector is read by the backbone.")
    windows: int = Field(
        1, ge=1, description="CLIP alone: windows that a longer caption is spread over."
    )
    masked: bool = Field(
        False,
        description="Padding is hidden, from the encoder and from the backbone, as in PixArt and "
        "Sana; SD3 and Flux look at it. A causal encoder's words never see it.",
    )
    lower_case: bool = Field(
        False, description="Captions in lower case, without space around, as PixArt and Sana do."
    )
    template: str = Field("", description="decoder: text around the caption, {} stands for it.")
    trainable: bool = Field(False, description="Trained along with the backbone.")
    options: dict[str, Any] = Field(
        {},
        description="words: width, depth, heads, feed_forward, vocabulary, vocabulary_size, "
        "stop_words, phrases. clip: final_norm (of an earlier layer, as diffusers' clip_skip). "
        "decoder: prefix = keep, drop or instruction, of the template's text before the caption.",
    )


class LatentsConfig(Settings):
    """The space that the backbone works in."""

    kind: Literal["pixels", "autoencoder"] = Field(
        "pixels", description="autoencoder = AutoencoderKL or AutoencoderDC of the source."
    )
    name: str = Field("vae", description="Its name in the pipeline's folder.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Of the autoencoder; SDXL's overflows in fp16."
    )


class ModelConfig(Settings):
    """What a preset's `model:` says: the parts, and where published ones come from.

    Compute a picture grows with the backbone's depth * width**2 times the number of patches and
    of text tokens; memory of the weights with depth * width**2.
    """

    source: str | None = Field(
        None,
        description="Pipeline in diffusers' layout, as a folder or on the hub, from which frozen "
        "parts, tokenizers and the backbone's arguments come; its backbone's weights only with "
        "init_from.",
    )
    resolution: int = Field(32, gt=0, description="Side of the square picture, pixels.")
    backbone: BackboneConfig = Field(BackboneConfig(), description="The network.")
    text: tuple[TextConfig, ...] = Field(
        (TextConfig(kind="words", trainable=True, masked=True),), description="Text encoders."
    )
    latents: LatentsConfig = Field(LatentsConfig(), description="Pixels, or an autoencoder's.")
