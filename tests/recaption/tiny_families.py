"""More tiny captioners of real architectures; see tiny_captioners."""

from __future__ import annotations

from pathlib import Path

from tiny_captioners import QWEN_CHAT, SMALL, save_captioner, word_tokenizer

VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
CHAT = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def build_qwen3vl(directory: Path) -> Path:
    """A Qwen3-VL: tokens by the picture's size, and features that enter several layers."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = word_tokenizer([*special, "<|image_pad|>", "<|video_pad|>"], kind="qwen2")
    ids = tokenizer.vocab
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer), **SMALL, "num_key_value_heads": 2, "head_dim": 16,
            "max_position_embeddings": 512, **ENDS,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2,
            "num_position_embeddings": 256, "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    pixels = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, merge_size=2, size=pixels),
        tokenizer,
        Qwen3VLVideoProcessor(patch_size=4, merge_size=2, size=pixels),
        chat_template=QWEN_CHAT,
    )
    return save_captioner(directory, Qwen3VLForConditionalGeneration, config, processor)


def build_idefics3(directory: Path, family: str = "idefics3") -> Path:
    """An Idefics3 or a SmolVLM: large pictures are cut into tiles."""
    import transformers as tf

    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4)]
    tokenizer = word_tokenizer([*special, *tiles])
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), **SMALL, "num_key_value_heads": 2,
        "max_position_embeddings": 512, **ENDS,
    }  # fmt: skip
    vision = {**VISION, "image_size": 32, "patch_size": 8}
    options = {
        "text_config": text, "vision_config": vision, "scale_factor": 2,
        "image_token_id": tokenizer.vocab["<image>"],
    }  # fmt: skip
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    chat = CHAT.replace("IMAGE", "<image>")
    if family == "smolvlm":
        processor = tf.SmolVLMProcessor(
            tf.SmolVLMImageProcessor(**sizes), tokenizer,
            tf.SmolVLMVideoProcessor(**sizes), image_seq_len=4, chat_template=chat,
        )  # fmt: skip
        return save_captioner(
            directory, tf.SmolVLMForConditionalGeneration, tf.SmolVLMConfig(**options), processor
        )
    processor = tf.Idefics3Processor(
        tf.Idefics3ImageProcessor(**sizes), tokenizer, image_seq_len=4, chat_template=chat
    )
    return save_captioner(
        directory, tf.Idefics3ForConditionalGeneration, tf.Idefics3Config(**options), processor
    )


def build_smolvlm(directory: Path) -> Path:
    """A SmolVLM; its processor needs the package num2words."""
    return build_idefics3(directory, "smolvlm")


def build_internvl(directory: Path, text: str = "qwen2") -> Path:
    """An InternVL: a picture is cut into as many tiles as its shape asks for."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    names = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    tokenizer = word_tokenizer(list(names.values()))
    for name, token in names.items():
        tokenizer.init_kwargs[name] = token
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.vocab[token])
    tokenizer._set_model_specific_special_tokens(names)
    config = InternVLConfig(
        text_config={
            "model_type": text, "vocab_size": len(tokenizer), **SMALL,
            "num_key_value_heads": 2, "max_position_embeddings": 512, **ENDS,
            **({"head_dim": 16} if text == "qwen3" else {}),
        },
        vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
        image_token_id=tokenizer.vocab["<IMG_CONTEXT>"], image_seq_length=4,
    )  # fmt: skip
    size = {"height": 16, "width": 16}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4), tokenizer,
        InternVLVideoProcessor(size=size), image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>"),
    )  # fmt: skip
    return save_captioner(directory, InternVLForConditionalGeneration, config, processor)


def build_gemma3(directory: Path) -> Path:
    """A Gemma3: every other layer sees a window of 56 positions only."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    names = {
        "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }  # fmt: skip
    tokenizer = word_tokenizer(list(names.values()))
    tokenizer._set_model_specific_special_tokens(names)
    ids = tokenizer.vocab
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer), **SMALL, "num_key_value_heads": 1, "head_dim": 16,
            "sliding_window": 56, "sliding_window_pattern": 2, "max_position_embeddings": 512,
            "query_pre_attn_scalar": 16, **ENDS,
        },
        vision_config={**VISION, "image_size": 32, "patch_size": 8, "vision_use_head": False},
        mm_tokens_per_image=4, image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"], eoi_token_index=ids["<end_of_image>"],
    )  # fmt: skip
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 32, "width": 32}), tokenizer, image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<start_of_image>"),
    )  # fmt: skip
    return save_captioner(directory, Gemma3ForConditionalGeneration, config, processor)


def build_paligemma(directory: Path) -> Path:
    """A PaliGemma: no chat template, and a prompt that is seen in both directions."""
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    tokenizer = word_tokenizer(["<image>", "caption", "en"])
    config = PaliGemmaConfig(
        text_config={
            "model_type": "gemma", "vocab_size": 4096, **SMALL, "num_key_value_heads": 1,
            "head_dim": 16, "max_position_embeddings": 512, **ENDS,
        },
        vision_config={
            **VISION, "image_size": 32, "patch_size": 8, "vision_use_head": False,
            "projection_dim": 32,
        },
        projection_dim=32, image_token_index=tokenizer.vocab["<image>"],
    )  # fmt: skip
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    processor = PaliGemmaProcessor(pictures, tokenizer)
    return save_captioner(directory, PaliGemmaForConditionalGeneration, config, processor)


def build_git(directory: Path) -> Path:
    """A GIT: one decoder over picture and text, no chat template."""
    from transformers import (
        BertTokenizer,
        CLIPImageProcessor,
        GitConfig,
        GitForCausalLM,
        GitProcessor,
    )

    tokenizer = bert_tokenizer(directory, BertTokenizer)
    ids = tokenizer.vocab
    config = GitConfig(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        vocab_size=len(tokenizer), **SMALL, max_position_embeddings=64,
        bos_token_id=ids["[CLS]"], eos_token_id=ids["[SEP]"], pad_token_id=ids["[PAD]"],
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    return save_captioner(directory, GitForCausalLM, config, GitProcessor(pictures, tokenizer))


def build_florence2(directory: Path) -> Path:
    """A Florence-2: an encoder and a decoder, asked by a task token."""
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = word_tokenizer(["<image>"])
    tokenizer._set_model_specific_special_tokens({"image_token": "<image>"})
    config = Florence2Config(
        text_config={
            "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32,
            "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "max_position_embeddings": 128, **ENDS, "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
        },
        vision_config={
            "depths": [1, 1, 1, 1], "embed_dim": [8, 16, 16, 32], "num_heads": [1, 2, 2, 4],
            "num_groups": [1, 2, 2, 4], "window_size": 2, "projection_dim": 32,
            "max_position_embeddings": 16,
        },
        image_token_id=tokenizer.vocab["<image>"],
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    pictures = CLIPImageProcessor(size=size, do_center_crop=False)
    pictures.image_seq_length = 5  # 2 x 2 patches of 64 px, and their mean
    processor = Florence2Processor(pictures, tokenizer)
    return save_captioner(directory, Florence2ForConditionalGeneration, config, processor)


def bert_tokenizer(directory: Path, kind: type) -> object:
    """A BERT tokenizer over the words of tiny_captioners."""
    from tiny_captioners import WORDS

    directory.mkdir(parents=True, exist_ok=True)
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *WORDS]
    vocabulary = directory / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(names)) + "\n")
    return kind(vocab=str(vocabulary))
