"""Published families at a few thousand random parameters: pipelines in diffusers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "red", "circle", "blue", "square", "green", "left", "of", "sks", "cat"]
# Of the captions that `tests.train.data.small_dataset` writes.
WORDS += ["plain", "everything", "is"]
SIDE = 32


def clip_tokenizer() -> Any:
    """CLIP's own tokenizer class over single letters and WORDS."""
    from transformers import CLIPTokenizer

    letters = sorted({letter for word in WORDS for letter in word})
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        whole = word[0] if len(word) > 1 else f"{word}</w>"
        for position, letter in enumerate(word[1:], 2):
            piece = letter if position < len(word) else f"{letter}</w>"
            if (whole, piece) not in merges:
                merges.append((whole, piece))
            whole += piece
            if whole not in vocabulary:
                vocabulary.append(whole)
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


def t5_tokenizer() -> Any:
    """T5's own tokenizer class over WORDS."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((f"▁{w}", -1.0) for w in WORDS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def clip_text(width: int, projected: bool = False) -> Any:
    """A random CLIP text encoder of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return scattered((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def t5_text(width: int) -> Any:
    """A random T5 encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, use_cache=False
    )
    return scattered(T5EncoderModel(config))


def gemma() -> tuple[Any, Any]:
    """A word tokenizer that puts <bos> in front, and a random Gemma 2 of one layer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    config = Gemma2Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    return fast, scattered(Gemma2Model(config))


def autoencoder_kl(channels: int = 4, shift: float | None = None) -> Any:
    """Four pixels a latent."""
    from diffusers import AutoencoderKL

    return scattered(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            latent_channels=channels,
            norm_num_groups=4,
            layers_per_block=1,
            shift_factor=shift,
        )
    )


def autoencoder_dc(channels: int = 4) -> Any:
    """Four pixels a latent, as in Sana."""
    from diffusers import AutoencoderDC

    blocks = {
        f"{side}_{what}": value
        for side in ("encoder", "decoder")
        for what, value in {
            "block_types": "ResBlock",
            "block_out_channels": (8, 8, 8),
            "layers_per_block": (1, 1, 1),
            "qkv_multiscales": ((), (), ()),
        }.items()
    }
    return scattered(AutoencoderDC(latent_channels=channels, **blocks))


def unet(text_width: int, pooled: int = 0) -> Any:
    """Of Stable Diffusion 1 and 2, or with pooled text and size ids as in XL."""
    from diffusers import UNet2DConditionModel

    extra: dict[str, Any] = {}
    if pooled:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": pooled + 6 * 8,
        }
    return scattered(
        UNet2DConditionModel(
            sample_size=SIDE // 4,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=text_width,
            attention_head_dim=4,
            **extra,
        )
    )


def scattered(model: Any, by: float = 0.1) -> Any:
    """`model` with noise on every parameter, so that none is zero; in eval mode."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * by)
    return model.eval()


def stable_diffusion() -> Any:
    """Stable Diffusion 1."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=autoencoder_kl(), text_encoder=clip_text(16), tokenizer=clip_tokenizer(),
        unet=unet(16), scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl() -> Any:
    """Stable Diffusion XL: two CLIPs side by side, the second one pooled."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=autoencoder_kl(), text_encoder=clip_text(16), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(16, projected=True), tokenizer_2=clip_tokenizer(),
        unet=unet(32, pooled=16), scheduler=DDIMScheduler(),
    )  # fmt: skip


def stable_diffusion_3(with_t5: bool = True) -> Any:
    """Stable Diffusion 3, with or without its T5."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 4, patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32,
        caption_projection_dim=16, pooled_projection_dim=32, pos_embed_max_size=16,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=scattered(transformer), scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder_kl(shift=0.1), text_encoder=clip_text(16, projected=True),
        tokenizer=clip_tokenizer(), text_encoder_2=clip_text(16, projected=True),
        tokenizer_2=clip_tokenizer(), text_encoder_3=t5_text(32) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )  # fmt: skip


def flux(guidance_embeds: bool = False) -> Any:
    """Flux 1: pooled CLIP and the sequence of T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
        guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=autoencoder_kl(shift=0.1),
        text_encoder=clip_text(16), tokenizer=clip_tokenizer(), text_encoder_2=t5_text(16),
        tokenizer_2=t5_tokenizer(), transformer=scattered(transformer),
    )  # fmt: skip


def pixart() -> Any:
    """PixArt-sigma, with a learned variance."""
    from diffusers import DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=SIDE // 4, patch_size=2, in_channels=4, out_channels=8, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, cross_attention_dim=16, caption_channels=16,
        use_additional_conditions=False,
    )  # fmt: skip
    return PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_text(16), vae=autoencoder_kl(),
        transformer=scattered(transformer), scheduler=DDIMScheduler(),
    )  # fmt: skip


def sana() -> Any:
    """Sana: Gemma 2 and a deep-compression autoencoder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel

    tokenizer, text_encoder = gemma()
    transformer = SanaTransformer2DModel(
        sample_size=SIDE // 4, patch_size=1, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, num_cross_attention_heads=2,
        cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
    )  # fmt: skip
    return SanaPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=autoencoder_dc(),
        transformer=scattered(transformer), scheduler=FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip


def saved(pipeline: Any, folder: Path) -> Path:
    """`folder`, with the pipeline in it."""
    pipeline.save_pretrained(folder)
    return folder
