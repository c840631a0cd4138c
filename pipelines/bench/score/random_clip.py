"""One CLIP with random weights, in the three forms that the scorers of the benchmark read.

    weights.safetensors   open_clip's state dict, for us
    weights.pt            the same tensors as a pickle, for clip-retrieval, which reads no other
    hf/                   the same function as transformers' CLIPModel, with a tokenizer rebuilt
                          from open_clip's byte-pair merges, for Data-Juicer

Speed does not depend on the values of the weights. Similarities do, and all three must give the
same ones: the benchmark prints how far they differ.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MERGES = 49152 - 256 - 2  # the merges that CLIP's vocabulary uses of the file's
_BEGINNINGS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # transformers' own spelling
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "transformer.resblocks": "text_model.encoder.layers",
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
}
_PARTS = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.": ".self_attn.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}
"""open_clip's names -> transformers'."""


@dataclass(frozen=True)
class ModelFiles:
    """Where the three forms lie; `name` is open_clip's name of the architecture."""

    name: str
    safetensors: Path
    pickle: Path
    hugging_face: Path


def write_model(folder: Path, name: str = "ViT-S-32", seed: int = 0) -> ModelFiles:
    """Make the weights of `name` from a seed and write all three forms into `folder`."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    files = ModelFiles(name, folder / "weights.safetensors", folder / "weights.pt", folder / "hf")
    files.hugging_face.mkdir(parents=True, exist_ok=True)
    config = open_clip.get_model_config(name)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        # The published models' temperature; Data-Juicer divides by it to get a cosine.
        model.logit_scale.fill_(math.log(100.0))
        for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
            # As drawn, every picture gives almost the same embedding; stronger blocks spread them.
            for weight in (block.attn.out_proj.weight, block.mlp.c_proj.weight):
                weight.mul_(3.0)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, files.safetensors)
    torch.save(state, files.pickle)
    weights = files.hugging_face / "model.safetensors"
    save_file(hugging_face_state(state), weights, metadata={"format": "pt"})
    _write_hugging_face_config(files.hugging_face, config)
    return files


def hugging_face_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's tensors under transformers' names, the joint projection of q, k, v split."""
    out = {}
    for key, tensor in state.items():
        start = next((start for start in _BEGINNINGS if key.startswith(start)), "")
        name = _BEGINNINGS.get(start, "") + key.removeprefix(start)
        for ours, theirs in _PARTS.items():
            name = name.replace(ours, theirs)
        if "in_proj_" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                out[name.replace("in_proj_", f"{letter}_proj.")] = part.contiguous()
        else:
            out[name] = tensor.T.contiguous() if "projection" in name else tensor
    return out


def _write_hugging_face_config(folder: Path, config: Mapping[str, Any]) -> None:
    """What CLIPModel and CLIPProcessor read besides weights, where it is not their default."""
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    vision, text = config["vision_cfg"], config["text_cfg"]
    size = vision["image_size"]

    def tower(part: Mapping[str, Any], heads: int, **rest: object) -> dict[str, object]:
        return {
            "hidden_size": part["width"],
            "intermediate_size": 4 * part["width"],
            "num_hidden_layers": part["layers"],
            "num_attention_heads": heads,
            "projection_dim": config["embed_dim"],
            "hidden_act": "quick_gelu" if config.get("quick_gelu") else "gelu",
            **rest,
        }

    heads = vision["width"] // vision.get("head_width", 64)
    files: dict[str, object] = {
        "config.json": {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": config["embed_dim"],
            "vision_config": tower(vision, heads, image_size=size, patch_size=vision["patch_size"]),
            "text_config": tower(
                text,
                text["heads"],
                vocab_size=text["vocab_size"],
                max_position_embeddings=text["context_length"],
                bos_token_id=49406,
                eos_token_id=49407,
            ),
        },
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": text["context_length"],
        },
        "preprocessor_config.json": {
            "processor_class": "CLIPProcessor",
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": size},
            "crop_size": {"height": size, "width": size},
        },
    }
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : _MERGES + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [*(merge.replace(" ", "") for merge in merges), "<|startoftext|>", "<|endoftext|>"]
    files["vocab.json"] = {word: number for number, word in enumerate(words)}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
