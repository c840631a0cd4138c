"""Tiny CLIP models of the published architectures, random, as folders of open_clip's layout.

Each is what open_clip makes of the published config with smaller numbers in it: the same classes,
pooling, activations and tokenizer.
"""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

from tests.curate.tiny import CLIP_CONFIG

# The words of the tokenizers made here.
WORDS = ["a", "red", "fox", "cat", "two", "on", "mat", "the", "dog", "runs", "green", "tree"]
TEXT = {"width": 16, "heads": 2, "layers": 2}
# Where a published config says the same of each model.
PUBLISHED = {
    "siglip": "ViT-SO400M-14-SigLIP-384",
    "siglip2": "ViT-SO400M-16-SigLIP2-384",
    "dfn": "ViT-H-14-378-quickgelu",
    "metaclip2": "ViT-H-14-worldwide-quickgelu",
    "pe-core": "PE-Core-L-14-336",
}


def build(family: str, folder: Path) -> Path:
    """The folder, with weights, config and, but for CLIP's own, a tokenizer."""
    import open_clip
    import torch
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
    from safetensors.torch import save_file

    published = PUBLISHED[family]
    config = copy.deepcopy(open_clip.get_model_config(published))
    _small(config, family)
    if tokenizer := TOKENIZERS.get(family):
        tokenizer(folder)
    [tag, *_] = list_pretrained_tags_by_model(published)
    known = get_pretrained_cfg(published, tag)
    preprocess = {name: known[name] for name in ("mean", "std", "interpolation", "resize_mode")}
    record = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(record))
    torch.manual_seed(0)
    options = {name: value for name, value in config.items() if name != "custom_text"}
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    model = kind(**copy.deepcopy(options))
    with torch.no_grad():
        # As made, biases are 0 and matrices so small that every picture is alike.
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.1)
            elif weight.ndim > 1:
                weight.mul_(3)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def _small(config: dict[str, Any], family: str) -> None:
    """Smaller numbers in a published config."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = width = 32 if family in ("siglip", "siglip2") else 16
    vision["image_size"] = 32
    if "timm_model_name" in vision:
        vision["timm_model_name"] = _tiny_tower(vision["timm_model_name"])
    else:
        vision.update(CLIP_CONFIG["vision_cfg"])
    text.update(TEXT, width=width)
    if "hf_tokenizer_name" in text:
        text["vocab_size"] = 64


def _tiny_tower(name: str) -> str:
    """Register the published tower of timm with smaller numbers, and return what it is called."""
    import timm
    import torch
    from timm.models import eva, register_model, vision_transformer

    tiny = f"tiny_{name}"
    if timm.is_model(tiny):
        return tiny
    small = {
        "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2,
    }  # fmt: skip
    if name.startswith("vit_pe"):
        pe = {
            "mlp_ratio": 4.0, "attn_type": "rope", "use_pre_transformer_norm": True,
            "use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "rope_grid_offset": 1.0,
            "rope_grid_indexing": "xy", "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 4.0,
            "norm_layer": partial(torch.nn.LayerNorm, eps=1e-5),
        }  # fmt: skip
        kind, more = eva.Eva, pe
    else:
        kind, more = vision_transformer.VisionTransformer, {"class_token": False}
        if "patch16" in name:  # of SigLIP 2, as timm has it
            more["act_layer"] = "gelu_tanh"

    def made(pretrained: bool = False, **options: Any) -> torch.nn.Module:
        options = {key: value for key, value in options.items() if not key.startswith("pretrained")}
        options.pop("cache_dir", None)
        return kind(**{**small, **more, **options})

    made.__name__ = tiny
    made.__module__ = "timm.models.vision_transformer"
    register_model(made)
    return tiny


def gemma_tokenizer(folder: Path) -> None:
    """SigLIP 2's: Gemma's, with the end of a text and without its start, padded at the right."""
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted(set("".join(WORDS)) | {"▁"})
    vocabulary = {token: number for number, token in enumerate([*special, *letters])}
    tokenizer = GemmaTokenizer(
        vocab=vocabulary, merges=[], add_bos_token=False, add_eos_token=True, padding_side="right"
    )
    tokenizer.save_pretrained(folder)


def t5_tokenizer(folder: Path) -> None:
    """SigLIP's: T5's, padded with its end of text."""
    from transformers import T5Tokenizer

    pieces = [("</s>", 0.0), ("<pad>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS]
    pieces += [(letter, -9.0) for letter in sorted(set("".join(WORDS)) | {"▁"})]
    T5Tokenizer(vocab=pieces, extra_ids=0, pad_token="</s>").save_pretrained(folder)


def xlm_tokenizer(folder: Path) -> None:
    """MetaCLIP 2's: XLM-V's, a start and an end of text, padded with 1."""
    from transformers import XLMRobertaTokenizer

    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS]
    pieces += [(letter, -9.0) for letter in sorted(set("".join(WORDS)) | {"▁"})]
    XLMRobertaTokenizer(vocab=pieces).save_pretrained(folder)


TOKENIZERS = {"siglip": t5_tokenizer, "siglip2": gemma_tokenizer, "metaclip2": xlm_tokenizer}
