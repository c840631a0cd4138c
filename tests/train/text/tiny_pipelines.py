"""Random pipelines of the published classes, of a few thousand parameters, made without a hub.

Their text parts are real: tokenizers of the same classes with a few pieces, models of the same
classes with two layers. Backbones and schedulers are left out where `encode_prompt` needs none.
"""

from __future__ import annotations

from typing import Any

import torch

PROMPTS = ["a red ring", "", "A Ring (small) at the top, red!", "red ring " * 80, "a"]
"""Short, empty, with capitals and signs, and longer than any window of these tests."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789(),.!<>|_:\n"
_WORDS = ["red", "ring", "top", "small", "at", "the", "cat", "dog"]


def clip_tokenizer(pad: str = "<|endoftext|>", window: int = 77) -> Any:
    """CLIP's, with letters and a few merged words; OpenCLIP's pads with "!"."""
    from transformers import CLIPTokenizer

    pieces = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]
    merges = []
    for word in _WORDS:
        whole = word[0]
        for index, letter in enumerate(word[1:]):
            last = f"{letter}</w>" if index == len(word) - 2 else letter
            merges.append((whole, last))
            whole += last
            pieces.append(whole)
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=list(dict.fromkeys(merges)),
        pad_token=pad,
        model_max_length=window,
    )


def clip_model(tokenizer: Any, width: int, projection: int | None = None, seed: int = 0) -> Any:
    """CLIPTextModel, or with a projection."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    cls = CLIPTextModelWithProjection if projection else CLIPTextModel
    return cls(config).eval()


def t5_tokenizer() -> Any:
    """T5's unigram model over a few pieces."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in _WORDS]
    pieces += [(letter, -5.0) for letter in _LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def t5_model(tokenizer: Any, width: int, seed: int = 0) -> Any:
    """T5EncoderModel of the v1.1 kind."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer) + 5,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def decoder_tokenizer(bos: bool) -> Any:
    """A byte-level BPE of letters as Gemma (with BOS) and Qwen (without) have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        padding_side="left",
        model_max_length=4096,
    )


def gemma_model(tokenizer: Any, width: int = 24) -> Any:
    """Gemma2Model, as Sana has it."""
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Gemma2Model(config).eval()


def qwen_vl_model(tokenizer: Any, width: int = 32) -> Any:
    """Qwen2_5_VLForConditionalGeneration, as Qwen-Image has it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
    }
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": width}
    vision |= {"intermediate_size": 16, "fullatt_block_indexes": [0]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    ).eval()


def qwen3_model(tokenizer: Any, width: int = 24) -> Any:
    """Qwen3Model, as Z-Image has it."""
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Qwen3Model(config).eval()
