"""Tiny captioners of real architectures: random weights, made offline, saved as users save."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SENTENCES = """
a an the red green blue yellow circle square triangle small large left right above below on
background plain with and is shows scene stands near top bottom . , describe this image name main
subject in one sentence short paragraph you are helpful user assistant begin text ? :
"""
WORDS = list(dict.fromkeys(SENTENCES.split()))
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
LLAVA_CHAT = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(seed: int = 0, size: tuple[int, int] = (48, 40), image_format: str = "png") -> bytes:
    """An encoded picture of blurred noise; different for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, image_format)
    return buffer.getvalue()


def build_llava(directory: Path) -> Path:
    """A LLaVA of about 90,000 parameters: CLIP tower of 32 px, Llama decoder, chat template."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = word_tokenizer(["<image>"])
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=32,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.vocab["<image>"],
        vision_feature_select_strategy="default", vision_feature_layer=-1,
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=LLAVA_CHAT,
    )  # fmt: skip
    return save_captioner(directory, LlavaForConditionalGeneration, config, processor)


def build_qwen25vl(directory: Path, heads: int = 2) -> Path:
    """A Qwen2.5-VL with random weights: as many image tokens as the picture's size asks for."""
    sections = [4 // heads, 6 // heads, 6 // heads]
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = word_tokenizer([*special, "<|image_pad|>", "<|video_pad|>"], kind="qwen2")
    ids = tokenizer.vocab
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), **SMALL, "num_attention_heads": heads,
            "num_key_value_heads": heads, "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections,
            },
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2, "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    pixels = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=pixels),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=4, merge_size=2, size=pixels),
        chat_template=QWEN_CHAT,
    )
    return save_captioner(directory, Qwen2_5_VLForConditionalGeneration, config, processor)


def build_blip(directory: Path) -> Path:
    """A BLIP with random weights: an encoder, a cross-attending decoder and no chat template."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    directory.mkdir(parents=True, exist_ok=True)
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[DEC]", "photo", "of", *WORDS]
    vocabulary = directory / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(names)) + "\n")
    tokenizer = BertTokenizer(vocab=str(vocabulary))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    config = BlipConfig(
        text_config={
            "vocab_size": len(tokenizer), **SMALL,
            "encoder_hidden_size": 32, "projection_dim": 32,
            "max_position_embeddings": 64, "bos_token_id": tokenizer.vocab["[DEC]"],
            "eos_token_id": tokenizer.vocab["[SEP]"], "sep_token_id": tokenizer.vocab["[SEP]"],
            "pad_token_id": tokenizer.vocab["[PAD]"],
        },
        vision_config={
            **SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 32,
        },
    )  # fmt: skip
    image_processor = BlipImageProcessor(size={"height": 32, "width": 32})
    processor = BlipProcessor(image_processor, tokenizer)
    return save_captioner(directory, BlipForConditionalGeneration, config, processor)


def word_tokenizer(special: list[str], kind: str = "plain") -> PreTrainedTokenizerFast:
    """A word-level fast tokenizer with <pad>, <s>, </s>, <unk> and `special`, padding left."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *special, *WORDS]
    backend = Tokenizer(
        models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", additional_special_tokens=special, padding_side="left",
    )  # fmt: skip
    if kind == "qwen2":
        tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    return tokenizer


def save_captioner(
    directory: Path, model_class: Callable, config: object, processor: object
) -> Path:
    """Make a model with random weights that depend on the picture, and save both."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # The default initialisation is so small that every picture gets the same words.
            if weight.ndim > 1 and "norm" not in name:
                weight.mul_(12.0)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)  # type: ignore[attr-defined]
    return directory


def build_coca(directory: Path) -> Path:
    """A CoCa of open_clip with a context of 16 tokens, in the layout of its folders."""
    import json

    from open_clip import CoCa
    from safetensors.torch import save_file

    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8,
            "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 8,
            "output_tokens": True,
        },
        "text_cfg": {**text, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**text, "attn_pooler_heads": 2},
        "custom_text": True,
    }  # fmt: skip
    torch.manual_seed(0)
    parts = {name: value for name, value in config.items() if name != "custom_text"}
    model = CoCa(**parts)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "text_projection" in name and "decoder" in name:
                weight.normal_(std=1.0)
            elif "cross_attn" in name and weight.ndim > 1:
                weight.normal_(std=0.6)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    record = {"model_cfg": config, "preprocess_cfg": preprocess}
    (directory / "open_clip_config.json").write_text(json.dumps(record))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, directory / "open_clip_model.safetensors")
    return directory
