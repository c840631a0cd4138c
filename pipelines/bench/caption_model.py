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

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.base.settings import Precision, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_LLAVA_CHAT = (
    "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
_QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
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
            for name in opened.keys():  # noqa: SIM118 - the file is no dict
                size = 1
                for side in opened.get_slice(name).get_shape():
                    size *= side
                total += size
    return total


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
    pictures = CLIPImageProcessor(
        size={"shortest_edge": image}, crop_size={"height": image, "width": image}
    )
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_CHAT,
    )
    return LlavaForConditionalGeneration(config), processor


def _tiny() -> Any:
    return _llava(
        32,
        8,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        {
            "vocab_size": 512,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
        },
    )


def _small() -> Any:
    return _llava(
        224,
        16,
        {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
        },
        {
            "vocab_size": 16_000,
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
        },
    )


def _llava_7b() -> Any:
    return _llava(
        336,
        14,
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        {
            "vocab_size": 32_064,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
        },
    )


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
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "max_position_embeddings": 32_768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [16, 24, 24],
            },
            "bos_token_id": 1,
            "eos_token_id": None,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
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


PRESETS: dict[str, Callable[[], Any]] = {
    "tiny": _tiny,
    "small": _small,
    "llava-1.5-7b": _llava_7b,
    "qwen2.5-vl-3b": _qwen_3b,
}
