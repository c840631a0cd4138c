"""Captioners with random weights for the caption benchmark: real architectures, no end token.

Speed does not depend on the values of the weights, so none are downloaded. What a model says is
noise: its tokenizer knows one made-up word a token, and no token ends a text, so that every row
writes exactly as many tokens as it is asked for.

    tiny            a LLaVA of 0.2 M parameters, for tests
    small           a LLaVA of 62 M: ViT-S/16 at 224 px (196 picture tokens), Llama of 8 layers
    llava-1.5-7b    LLaVA-1.5's sizes (Liu et al. 2023): ViT-L/14 at 336 px, Llama of 7 B
    qwen2.5-vl-3b   Qwen2.5-VL-3B's sizes (Bai et al. 2025): tokens by the picture's size
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.base.settings import Precision, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TURNS = "{{% for m in messages %}}{}{{% endfor %}}{{% if add_generation_prompt %}}{}{{% endif %}}"
_PARTS = (
    "{%% for c in m['content'] %%}{%% if c['type'] == 'image' %%}%s"
    "{%% else %%}{{ c['text'] }}%s{%% endif %%}{%% endfor %%}"
)
_LLAVA_CHAT = _TURNS.format("{{ m['role'] }} " + _PARTS % ("<image> ", " "), "assistant ")
_QWEN_CHAT = _TURNS.format(
    "<|im_start|>{{ m['role'] }}\n"
    + _PARTS % ("<|vision_start|><|image_pad|><|vision_end|>", "")
    + "<|im_end|>\n",
    "<|im_start|>assistant\n",
)
# The words of a prompt of ours are one token each, as common words are for a real tokenizer.
_PROMPT_WORDS = (
    "user assistant describe this image in one paragraph : the subject , its surroundings "
    "background any text it style and colours . begin with say only what can be seen"
)
PRECISIONS: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16"}
"""torch's names of what is measured -> the settings' words."""


def write_captioner(folder: Path, preset: str, dtype: str = "float32", seed: int = 0) -> Path:
    """Make the captioner `preset` from a seed and save it to `folder` as safetensors.

    Args:
        dtype: of the stored weights, "float32" or "bfloat16".

    Raises:
        ConfigError: there is no such preset.
    """
    import torch

    if preset not in PRESETS:
        raise ConfigError(f"There is no captioner {preset!r}; {nearest(preset, list(PRESETS))}")
    if (folder / ".ready").exists():
        return folder
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        model, processor = PRESETS[preset]()
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / ".ready").touch()
    return folder


def parameters(folder: Path) -> int:
    """Numbers in the weights of a saved model; reads the files' headers only."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as opened:
            names = opened.keys()
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
    return total


def _sizes(width: int, inner: int, layers: int, heads: int, **rest: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **rest,
    }


def _llava(image: int, patch: int, vision: dict[str, Any], text: dict[str, Any]) -> Any:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _tokenizer(text["vocab_size"], ["<image>"])
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=image, patch_size=patch, **vision),
        text_config=LlamaConfig(bos_token_id=1, eos_token_id=None, pad_token_id=0, **text),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": image}, crop_size={"height": image, "width": image}
        ),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_CHAT,
    )
    return LlavaForConditionalGeneration(config), processor


def _qwen_3b() -> Any:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = _tokenizer(151_936, [*special, "<|image_pad|>", "<|video_pad|>"])
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    ids = tokenizer.get_vocab()
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    text = _sizes(2048, 11_008, 36, 16, num_key_value_heads=2, vocab_size=151_936)
    text |= {"tie_word_embeddings": True, "max_position_embeddings": 32_768}
    text |= {"rope_parameters": rope, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    vision: dict[str, Any] = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
    }
    vision |= {"out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2}
    vision |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=_QWEN_CHAT
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _tokenizer(vocabulary: int, special: list[str]) -> PreTrainedTokenizerFast:
    """One word a token, `vocabulary` in all, none of which ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "<unk>", *special, *_PROMPT_WORDS.split()]
    names = list(dict.fromkeys(names))
    names += [f"word{number}" for number in range(len(names), vocabulary)]
    words = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="<unk>",
        additional_special_tokens=special,
        padding_side="left",
    )


_TINY = _sizes(48, 96, 2, 2, vocab_size=512, max_position_embeddings=512)
_SMALL = _sizes(512, 1376, 8, 8, vocab_size=16_000, max_position_embeddings=2048)
_SMALL |= {"num_key_value_heads": 4, "tie_word_embeddings": False}
_7B = _sizes(4096, 11_008, 32, 32, vocab_size=32_064, max_position_embeddings=4096)
PRESETS: dict[str, Callable[[], Any]] = {
    "tiny": partial(_llava, 32, 8, _sizes(32, 64, 2, 2), _TINY),
    "small": partial(_llava, 224, 16, _sizes(384, 1536, 12, 6), _SMALL),
    "llava-1.5-7b": partial(_llava, 336, 14, _sizes(1024, 4096, 24, 16), _7B),
    "qwen2.5-vl-3b": _qwen_3b,
}
