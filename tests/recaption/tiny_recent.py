"""Tiny captioners of the families that people run today; see tiny_captioners and tiny_families."""

from __future__ import annotations

from pathlib import Path

from tiny_captioners import QWEN_CHAT, SMALL, save_captioner, word_tokenizer
from tiny_families import CHAT, ENDS, VISION, build_internvl, build_qwen3vl

__all__ = ["build_gemma4", "build_internvl35", "build_qwen3vl", "build_qwen35"]

# As Qwen3.5's own template: it thinks unless it is told not to.
THINKING_CHAT = QWEN_CHAT.replace(
    "<|im_start|>assistant\n{% endif %}",
    "<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}",
)
# As Gemma 4's: thinking is a word in the system turn.
GEMMA4_CHAT = "{% if enable_thinking is defined and enable_thinking %}<|think|> {% endif %}" + (
    CHAT.replace("IMAGE", "<|image|>")
)


def build_qwen35(directory: Path) -> Path:
    """A Qwen3.5: three layers of linear attention to one of softmax, and thinking by default."""
    import transformers as tf

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    special += ["<|image_pad|>", "<|video_pad|>", "<think>", "</think>"]
    tokenizer = word_tokenizer(special, kind="qwen2")
    ids = tokenizer.vocab
    config = tf.Qwen3_5Config(
        text_config={
            "vocab_size": len(tokenizer), **SMALL, "num_hidden_layers": 4, "head_dim": 16,
            "num_key_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "max_position_embeddings": 512, **ENDS,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1],
                "mrope_interleaved": True, "partial_rotary_factor": 0.5,
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2,
            "num_position_embeddings": 256,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    pixels = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    processor = tf.Qwen3VLProcessor(
        tf.Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=pixels),
        tokenizer,
        tf.Qwen3VLVideoProcessor(patch_size=4, merge_size=2, size=pixels),
        chat_template=THINKING_CHAT,
    )
    return save_captioner(directory, tf.Qwen3_5ForConditionalGeneration, config, processor)


def build_internvl35(directory: Path) -> Path:
    """An InternVL 3.5: InternVL's class and tiles with Qwen3 behind them."""
    return build_internvl(directory, text="qwen3")


def build_gemma4(directory: Path) -> Path:
    """A Gemma 4: embeddings of their own in each layer, shared keys, pictures seen both ways."""
    import transformers as tf

    names = {
        "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
        "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>",
    }  # fmt: skip
    tokenizer = word_tokenizer([*names.values(), "<|video|>", "<|think|>"])
    tokenizer._set_model_specific_special_tokens(names)
    ids = tokenizer.vocab
    size = len(tokenizer)
    config = tf.Gemma4Config(
        text_config={
            "vocab_size": size, "vocab_size_per_layer_input": size, **SMALL,
            "num_hidden_layers": 4, "num_key_value_heads": 1, "head_dim": 16,
            "global_head_dim": 32, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 90,
            "use_bidirectional_attention": "vision", "max_position_embeddings": 512, **ENDS,
        },
        vision_config={
            **VISION, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4,
            "position_embedding_size": 256,
        },
        audio_config=None,
        image_token_id=ids["<|image|>"], boi_token_id=ids["<|image>"],
        eoi_token_id=ids["<image|>"], video_token_id=ids["<|video|>"],
        audio_token_id=ids["<|audio|>"], boa_token_id=ids["<|audio>"],
        eoa_token_index=ids["<audio|>"],
    )  # fmt: skip
    # 70 is the least that its image processor takes: pictures of about 100 x 100 px.
    pictures = {"patch_size": 4, "max_soft_tokens": 70, "pooling_kernel_size": 3}
    processor = tf.Gemma4Processor(
        tf.Gemma4AudioFeatureExtractor(), tf.Gemma4ImageProcessor(**pictures), tokenizer,
        tf.Gemma4VideoProcessor(**pictures), chat_template=GEMMA4_CHAT, image_seq_length=70,
    )  # fmt: skip
    return save_captioner(directory, tf.Gemma4ForConditionalGeneration, config, processor)
