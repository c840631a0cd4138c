"""The captioner that is fitted: loaded, or a small LLaVA from nothing with its own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curate.base.errors import ConfigError
from recaption.fit.settings import FitSettings

PAD, BEGIN, END, IMAGE = "<|pad|>", "<|begin|>", "<|end|>", "<|image|>"


@dataclass
class Fitted:
    """A captioner in training: model (float32), processor, and the dtype that it is stored in."""

    model: Any
    processor: Any
    stored_dtype: torch.dtype

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.model.parameters())

    def save(self, folder: Path) -> None:
        """Weights as safetensors, configuration, processor, chat template, generation settings."""
        cast: dict[int, torch.Tensor] = {}  # by address, so that tied weights stay tied
        weights = {
            name: cast.setdefault(t.data_ptr(), t.to(self.stored_dtype))
            if t.is_floating_point()
            else t
            for name, t in self.model.state_dict().items()
        }
        self.model.save_pretrained(folder, state_dict=weights)
        self.processor.save_pretrained(folder)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        for part in (config, *(v for v in config.values() if isinstance(v, dict) and "dtype" in v)):
            part["dtype"] = str(self.stored_dtype).removeprefix("torch.")
        path.write_text(json.dumps(config, indent=2) + "\n")


def load_captioner(folder: Path) -> Fitted:
    """A captioner with a chat template, in float32.

    Raises:
        ConfigError: transformers cannot load it, or it cannot be asked for a kind of caption.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{folder} cannot be loaded as a captioner ({first}).") from error
    if not getattr(processor, "chat_template", None) or model.config.is_encoder_decoder:
        raise ConfigError(
            f"A {model.config.model_type} captioner has no chat template to be asked by; fit one "
            f"that has (LLaVA, Qwen-VL, SmolVLM, Gemma 3, InternVL)."
        )
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    processor.tokenizer.padding_side = "left"
    return Fitted(model.float(), processor, model.dtype)


def new_captioner(
    settings: FitSettings, texts: Iterable[str], prompts: Mapping[str, str]
) -> Fitted:
    """A randomly initialised LLaVA: CLIP vision tower, two-layer projector, Llama.

    Args:
        texts: what the tokenizer is trained on.
        prompts: kind -> its user turn. A model this small reads no prose, so its chat template
            turns each of these texts into one token; any other text is read as it stands.
    """
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = train_tokenizer(texts, list(prompts), settings.vocabulary)
    tokens = (settings.image_side // settings.patch) ** 2
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = CLIPVisionConfig(
        hidden_size=settings.width,
        intermediate_size=3 * settings.width,
        num_hidden_layers=settings.vision_depth,
        num_attention_heads=settings.heads,
        image_size=settings.image_side,
        patch_size=settings.patch,
        projection_dim=settings.width,
        attention_dropout=settings.dropout,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=3 * settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=tokens + settings.max_caption_tokens + 256,
        attention_dropout=settings.dropout,
        tie_word_embeddings=False,
        **ids,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=tokens,
        tie_word_embeddings=False,
        # On CPUs the backward of the fused attention is several times slower than the plain one.
        attn_implementation="eager",
        **ids,
    )
    torch.manual_seed(settings.seed)
    model = LlavaForConditionalGeneration(config).float()
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=settings.max_caption_tokens, **ids
    )
    side = {"height": settings.image_side, "width": settings.image_side}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        patch_size=settings.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which "default" drops again
        chat_template=chat_template(prompts),
    )
    return Fitted(model, processor, torch.float32)


def train_tokenizer(texts: Iterable[str], kinds: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer (nothing is unknown to it) with one token to ask for each kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END, IMAGE, *(ask(kind) for kind in kinds)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def ask(kind: str) -> str:
    """The token that asks a new captioner for a kind."""
    return f"<|{kind}|>"


def chat_template(prompts: Mapping[str, str]) -> str:
    """Image and user text in their order; known prompts as one token; system turns unread."""
    asked = "".join(
        f"{{% elif text == {json.dumps(text, ensure_ascii=False)} %}}{ask(kind)}"
        for kind, text in prompts.items()
    )
    known = f"{{% macro said(text) %}}{{% if not text %}}{asked}{{% else %}}{{{{ text }}}}"
    return (
        known + "{% endif %}{% endmacro %}{{ bos_token }}{% for turn in messages %}"
        "{% if turn['role'] == 'user' %}{% if turn['content'] is string %}"
        "{{ said(turn['content']) }}{% else %}{% for part in turn['content'] %}"
        "{% if part['type'] == 'image' %}" + IMAGE + "{% else %}{{ said(part['text']) }}{% endif %}"
        "{% endfor %}{% endif %}{% elif turn['role'] == 'assistant' %}"
        "{% if turn['content'] is string %}{{ turn['content'] }}"
        "{% else %}{{ turn['content'][0]['text'] }}{% endif %}{{ eos_token }}"
        "{% endif %}{% endfor %}"
    )


class ContrastiveHeads(nn.Module):
    """Projections of image and text into one space and their temperature; gone after pre-training.

    As CoCa's, the text is read by the language model without the image and embedded at its last
    token; the image is the mean of its tokens behind the projector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Linear(width, width, bias=False)
        self.text = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.6593))  # ln(1 / 0.07), as CLIP's
