"""The network: a PixArt transformer over pixels with a small T5 text encoder, trained together."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from train.settings import ModelConfig

if TYPE_CHECKING:
    from diffusers import PixArtTransformer2DModel
    from transformers import T5EncoderModel

# diffusers counts noise from 0 to 1000, also for flow models.
TIMESTEP_SCALE = 1000.0
# Above this many patches PyTorch's fused attention wins on a CPU as well.
MATMUL_ATTENTION_TOKENS = 512

# Positions run from 0 to this, however many patches there are. diffusers counts patches, and on a
# grid of 4 most sin-cos channels (frequencies 1 to 1e-4) then hardly differ from place to place.
POSITION_SPAN = 128
# Root mean square of the embedding of a patch of unit noise at the start (positions have 0.7).
PATCH_SCALE = 0.1
# On the first queries and keys of cross-attention, so that every patch first sees the whole text
# evenly. At 2.5 each attends to random words and the text is not used for hundreds of steps.
CROSS_ATTENTION_SCALE = 0.5
# Initial text attention: score lost a word away from the neighbour that a head looks at, at most.
NEIGHBOUR_SLOPE = 3.0
NEIGHBOUR_FLOOR = 6.0


class TextToImage(nn.Module):
    """Text tokens and a noised picture in, a prediction out.

    Both parts are library classes (diffusers' PixArtTransformer2DModel, transformers'
    T5EncoderModel), so an export is a plain save. They carry our own initialisation.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = _text_encoder(config, vocabulary_size)
        self.transformer = _transformer(config)

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Text embeddings (B, T, text_width) of tokens (B, T) int64 with mask (B, T), 1 = word."""
        embeddings: Tensor = self.text_encoder(tokens, attention_mask=mask).last_hidden_state
        return embeddings

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Prediction (B, 3, R, R) from x_t (B, 3, R, R), t (B,) in (0, 1] and text (B, T, D)."""
        output: Tensor = self.transformer(
            x_t,
            encoder_hidden_states=text,
            timestep=t * TIMESTEP_SCALE,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
        return output

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """`denoise` under the embeddings of `tokens`."""
        return self.denoise(x_t, t, self.encode_text(tokens, mask), mask)


def build_model(config: ModelConfig, vocabulary_size: int, seed: int) -> TextToImage:
    """A freshly initialised model on the CPU in float32.

    Every parameter draws from a generator of its own, seeded with (seed, its name): two runs of
    one seed start from the same weights even where one has a larger vocabulary.
    """
    model = TextToImage(config, vocabulary_size)
    initialise(model, seed)
    return model


@torch.no_grad()
def initialise(model: TextToImage, seed: int) -> None:
    """Initialise in place as DiT and PixArt say (diffusers leaves PyTorch's defaults).

    Linear layers Xavier-uniform, embedders N(0, 0.02), biases 0; the modulation and the outputs
    of cross-attention and of the last layer 0, so that the network starts as a plain residual
    stream that the picture and the text enter step by step (Peebles and Xie 2023, arXiv
    2212.09748, section 3.2; PixArt-alpha, arXiv 2310.00426, section 2.3). `initial_gate` sets
    the gates of self-attention and feed-forward: 0 is DiT's identity.
    """
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(_name_seed(seed, name))
        if name.endswith("relative_attention_bias.weight"):
            parameter.copy_(_local_bias(model))
        elif name.endswith("shared.weight"):
            # T5's layer norm does not centre; unit rows keep its input at scale 1.
            parameter.normal_(0, 1, generator=generator)
        elif "layer_norm" in name:
            parameter.fill_(1)
        elif name.endswith("scale_shift_table"):
            parameter.zero_()
            if name.startswith("transformer.transformer_blocks"):
                # Rows: shift, scale, gate of self-attention; shift, scale, gate of feed-forward.
                parameter[[2, 5]] = model.config.initial_gate
        elif name == "transformer.pos_embed.proj.weight":
            # At t near 1 a patch is noise, and at Xavier's scale it drowns the patch's position,
            # by which the text finds it; quieter, that is learned several times faster.
            parameter.normal_(0, PATCH_SCALE / math.sqrt(parameter[0].numel()), generator=generator)
        elif parameter.ndim == 1 or _starts_at_zero(name):
            parameter.zero_()
        elif "timestep_embedder" in name:
            parameter.normal_(0, 0.02, generator=generator)
        else:
            fan_out, fan_in = parameter.shape[0], parameter[0].numel()
            bound = math.sqrt(6 / (fan_in + fan_out))
            if "attn2.to_q" in name or "attn2.to_k" in name:
                bound *= CROSS_ATTENTION_SCALE
            parameter.uniform_(-bound, bound, generator=generator)
    for block in model.text_encoder.encoder.block:
        attention = block.layer[0].SelfAttention
        # T5 does not divide its scores by sqrt(d_kv); the query's initial scale stands in for it.
        attention.q.weight.mul_(attention.key_value_proj_dim**-0.5)


def _local_bias(model: TextToImage) -> Tensor:
    """Initial relative position bias (buckets, heads): each head looks at one neighbour.

    T5 starts without any, so that every word first sees the mean of all words, and the bias, a
    few scalars under AdamW, needs a thousand steps to tell neighbours from strangers. Here head 0
    starts on the word before, head 1 on the word behind, and so on outwards; the last head starts
    flat. It is a learned convolution over words at the start and free to become anything else.
    """
    attention = model.text_encoder.encoder.block[0].layer[0].SelfAttention
    half = attention.relative_attention_num_buckets // 2
    bucket = torch.arange(2 * half)
    # The first half of the buckets are words before (and the word itself), the second behind.
    distance = torch.where(bucket < half, -bucket, bucket - half).float()
    bias = torch.zeros(2 * half, attention.n_heads)
    for head in range(attention.n_heads - 1):
        offset = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
        bias[:, head] = -(NEIGHBOUR_SLOPE * (distance - offset).abs()).clamp(max=NEIGHBOUR_FLOOR)
    return bias


def _starts_at_zero(name: str) -> bool:
    return name.startswith("transformer.") and (
        name == "transformer.proj_out.weight"
        or name == "transformer.adaln_single.linear.weight"
        or "attn2.to_out" in name
    )


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may update a parameter: matrices between hidden layers.

    Embeddings, the first and last layer and the modulation belong to AdamW (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon).
    """
    return parameter.ndim == 2 and not any(
        part in name
        for part in ("shared", "relative_attention_bias", "proj_out", "adaln_single", "table")
    )


def _text_encoder(config: ModelConfig, vocabulary_size: int) -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    t5 = T5Config(
        vocab_size=vocabulary_size,
        d_model=config.text_width,
        d_kv=config.text_width // config.text_heads,
        d_ff=config.text_feed_forward,
        num_layers=config.text_depth,
        num_heads=config.text_heads,
        # One bucket a distance up to 16 tokens either way: exact word order within a clause.
        relative_attention_num_buckets=64,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        use_cache=False,
        pad_token_id=0,
        eos_token_id=1,
        attn_implementation="eager",
    )
    # .eval(): T5 starts in train mode with dropout, PixArt in eval; here neither has any.
    return T5EncoderModel(t5).eval()


def _transformer(config: ModelConfig) -> PixArtTransformer2DModel:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=3,
        out_channels=3,
        num_layers=config.depth,
        cross_attention_dim=config.width,
        caption_channels=config.text_width,
        sample_size=config.resolution,
        patch_size=config.patch_size,
        num_embeds_ada_norm=1000,
        interpolation_scale=(config.resolution // config.patch_size) / POSITION_SPAN,
        # diffusers would ask for size conditions at sample_size 128.
        use_additional_conditions=False,
    )


def use_fast_attention(model: TextToImage, device: torch.device) -> None:
    """Choose the attention that is fastest on `device`.

    PyTorch's fused attention has a backward pass on CPU that is up to 15 times slower than two
    matmuls and a softmax at the sequence lengths of small models; on CUDA it is the fast one.
    """
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    patches = (model.config.resolution // model.config.patch_size) ** 2
    plain = device.type == "cpu" and patches <= MATMUL_ATTENTION_TOKENS
    processor: Any = AttnProcessor() if plain else AttnProcessor2_0()
    model.transformer.set_attn_processor(processor)


def _name_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
