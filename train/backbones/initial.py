"""Weights of a network from nothing, as its paper says (diffusers leaves PyTorch's defaults).

Every parameter draws from a generator of its own, seeded with (seed, its name): two runs of one
seed start from the same weights even where another part of the model differs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from curate.base.seeds import generator_of

# Root mean square of the embedding of a patch of unit noise at the start (positions have 0.7).
PATCH_SCALE = 0.1
# On the first queries and keys of cross-attention, so that every patch first sees the whole text
# evenly. At 2.5 each attends to random words and the text is not used for hundreds of steps.
CROSS_ATTENTION_SCALE = 0.5

# fmt: off
# Parts of names (between dots) that a modulation has in one family or another,
MODULATIONS = {
    "adaLN_modulation", "adaln_single", "double_stream_modulation_img", "modulation", "norm_out",
    "double_stream_modulation_txt", "img_mod", "norm", "norm1", "norm1_context", "txt_mod",
    "scale_shift_table", "single_stream_modulation",
}
# embeddings of time and of what is told along with it,
TIMES = {
    "add_embedding", "resolution_embedder", "t_embedder", "time_emb_proj", "time_embed", "time_in",
    "time_embedding", "time_guidance_embed", "time_text_embed",
}
# first and last layers, tables of embeddings (text encoders' too), and adapters.
ENDS = {
    "all_final_layer", "all_x_embedder", "cap_embedder", "cap_pad_token", "context_embedder",
    "embed_tokens", "final_layer", "img_in", "lora_A", "lora_B", "position_embedding", "rows",
    "relative_attention_bias", "shared", "text_projection", "token_embedding", "txt_in",
    "x_embedder", "x_pad_token",
}
# fmt: on


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may update a parameter of a backbone or a text encoder.

    Matrices between hidden layers, and neither embeddings, the first and last layer, modulation
    nor adapters, which belong to AdamW (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
    Convolutions do as well: their orthogonal form is no settled matter.
    """
    parts = name.split(".")
    named = MODULATIONS | TIMES | ENDS
    return parameter.ndim == 2 and not named.intersection(parts) and not _is_last(parts)


def _is_last(parts: list[str]) -> bool:
    """proj_out of the network; that of a numbered block is a hidden layer."""
    if "proj_out" not in parts:
        return False
    place = parts.index("proj_out")
    return place == 0 or not parts[place - 1].isdigit()


@torch.no_grad()
def initialise(inner: nn.Module, part: str, seed: int, initial_gate: float = 0.0) -> None:
    """Initialise a network in place; `part` ("transformer", "unet") is the prefix of its names."""
    if part == "unet":
        _initialise_unet(inner, part, seed)
        return
    for name, parameter in inner.named_parameters():
        _initialise_transformer(name, parameter, generator_of(seed, f"{part}.{name}"), initial_gate)


def _initialise_transformer(
    name: str, parameter: Tensor, generator: torch.Generator, initial_gate: float
) -> None:
    """As DiT and PixArt say, in every family of transformers.

    Linear layers Xavier-uniform, embedders of time N(0, 0.02), biases 0, norms 1; the modulation
    and the outputs of cross-attention and of the last layer 0, so that the network starts as a
    plain residual stream that the picture and the text enter step by step (Peebles and Xie 2023,
    arXiv 2212.09748, section 3.2; PixArt-alpha, arXiv 2310.00426, section 2.3; Sana, arXiv
    2410.10629, takes both over). `initial_gate` sets the gates of self-attention and feed-forward
    where they stand in a table: 0 is DiT's identity.
    """
    parts = name.split(".")
    if name.endswith("scale_shift_table"):
        parameter.zero_()
        if name.startswith("transformer_blocks"):
            # Rows: shift, scale, gate of self-attention; shift, scale, gate of feed-forward.
            parameter[[2, 5]] = initial_gate
    elif name == "pos_embed.proj.weight":
        # At t near 1 a patch is noise, and at Xavier's scale it drowns the patch's position, by
        # which the text finds it; quieter, that is learned several times faster.
        parameter.normal_(0, PATCH_SCALE / math.sqrt(parameter[0].numel()), generator=generator)
    elif parameter.ndim == 1:
        parameter.fill_(0 if parts[-1] == "bias" else 1)
    elif _starts_at_zero(parts):
        parameter.zero_()
    elif "pad_token" in name or "timestep_embedder" in parts or not TIMES.isdisjoint(parts):
        parameter.normal_(0, 0.02, generator=generator)
    elif parameter.ndim == 4 and parts[0] != "patch_embed":
        # Convolutions within blocks (Sana's): PyTorch's rule.
        bound = parameter[0].numel() ** -0.5
        parameter.uniform_(-bound, bound, generator=generator)
    else:
        bound = math.sqrt(6 / (parameter.shape[0] + parameter[0].numel()))
        if "attn2" in parts and ("to_q" in parts or "to_k" in parts):
            bound *= CROSS_ATTENTION_SCALE
        parameter.uniform_(-bound, bound, generator=generator)


def _starts_at_zero(parts: list[str]) -> bool:
    modulation = not MODULATIONS.isdisjoint(parts) or parts[:2] == ["time_embed", "linear"]
    return (
        (modulation and "timestep_embedder" not in parts)
        or _is_last(parts)
        or ("attn2" in parts and "to_out" in parts)
        or not {"final_layer", "all_final_layer"}.isdisjoint(parts)
    )


def _initialise_unet(inner: nn.Module, part: str, seed: int) -> None:
    """PyTorch's defaults, with every residual branch and the output at 0.

    So do ADM (Dhariwal and Nichol 2021, arXiv 2105.05233) and the code of Stable Diffusion: the
    second convolution of a residual block, the projection out of a transformer, the last one.
    """
    for name, module in inner.named_modules():
        own = dict(module.named_parameters(prefix=f"{part}.{name}", recurse=False))
        bound = 1.0
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
        zero = name == "conv_out" or name.endswith((".conv2", ".proj_out"))
        for full_name, parameter in own.items():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                parameter.fill_(1 if full_name.endswith("weight") else 0)
            elif zero:
                parameter.zero_()
            else:
                parameter.uniform_(-bound, bound, generator=generator_of(seed, full_name))
