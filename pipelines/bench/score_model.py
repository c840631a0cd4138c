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

Tensors = Mapping[str, "torch.Tensor"]
_MERGES = 49152 - 256 - 2  # the merges that CLIP's vocabulary uses of the file's


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

    folder.mkdir(parents=True, exist_ok=True)
    files = ModelFiles(name, folder / "weights.safetensors", folder / "weights.pt", folder / "hf")
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
    write_hugging_face(files.hugging_face, state, config)
    return files


def write_hugging_face(folder: Path, state: Tensors, config: Mapping[str, Any]) -> None:
    """An open_clip CLIP as a folder that transformers' CLIPModel and CLIPProcessor load."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = hugging_face_state(state)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(config), indent=1))
    _write_processor(folder, int(config["vision_cfg"]["image_size"]), config["text_cfg"])


def hugging_face_state(state: Tensors) -> dict[str, torch.Tensor]:
    """open_clip's tensors under transformers' names, the joint projection of q, k, v split."""
    out: dict[str, torch.Tensor] = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
    }
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",  # transformers' own spelling
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    for ours, theirs in norms.items():
        for part in ("weight", "bias"):
            out[f"{theirs}.{part}"] = state[f"{ours}.{part}"]
    towers = {
        "visual.transformer.resblocks.": "vision_model.encoder.layers.",
        "transformer.resblocks.": "text_model.encoder.layers.",
    }
    for ours, theirs in towers.items():
        for key, tensor in state.items():
            if key.startswith(ours):
                number, _, rest = key.removeprefix(ours).partition(".")
                parts = _block_tensors(rest, tensor)
                out |= {f"{theirs}{number}.{name}": part for name, part in parts}
    return out


_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _block_tensors(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = tensor.chunk(3)
        return [
            (f"self_attn.{letter}_proj.{kind}", part.contiguous())
            for letter, part in zip("qkv", parts, strict=True)
        ]
    module, _, kind = name.rpartition(".")
    return [(f"{_BLOCK_NAMES[module]}.{kind}", tensor)]


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    vision, text = config["vision_cfg"], config["text_cfg"]
    width, layers = int(vision["width"]), int(vision["layers"])
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config["embed_dim"],
        "logit_scale_init_value": math.log(100.0),
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // int(vision.get("head_width", 64)),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "projection_dim": config["embed_dim"],
            "hidden_act": activation,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": 4 * int(text["width"]),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "projection_dim": config["embed_dim"],
            "hidden_act": activation,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        },
    }


def _write_processor(folder: Path, size: int, text: Mapping[str, Any]) -> None:
    """Tokenizer and picture transform of transformers' CLIPProcessor."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    letters = list(bytes_to_unicode().values())
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : _MERGES + 1]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": text["context_length"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    processor = {
        "processor_class": "CLIPProcessor",
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(OPENAI_DATASET_MEAN),
        "image_std": list(OPENAI_DATASET_STD),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
