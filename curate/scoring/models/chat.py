"""Models of transformers that write about a picture: from their folder, and what they are given.

Safetensors only, no code of the repository.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch

from curate.base.errors import ConfigError
from curate.base.reasons import words

NO_THINKING = {"enable_thinking": False}
"""For a chat template: Qwen3.5 and others think aloud unless told not to; most ask nothing."""


class TextProcessor:
    """What stands in the place of a processor where a model reads texts alone."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template

    def apply_chat_template(self, turns: list[dict[str, Any]], **options: Any) -> str:
        """The turns as one text; a turn of parts is the text of its parts."""
        plain = [
            {**turn, "content": " ".join(part["text"] for part in turn["content"])}
            for turn in turns
        ]
        text: str = self.tokenizer.apply_chat_template(plain, **options)
        return text

    def __call__(self, text: list[str], **options: Any) -> Any:
        from transformers import BatchFeature

        return BatchFeature(dict(self.tokenizer(text, **options)))


def load_captioner(
    folder: Path | str, dtype: torch.dtype, device: torch.device, texts_alone: bool = False
) -> tuple[Any, Any]:
    """(processor, model on its device), ready for batches and for greedy search.

    Args:
        texts_alone: whether a language model without eyes will do.

    Raises:
        ConfigError: the folder holds no captioner that transformers can load.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bar would tear up the command's own
    try:
        family = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        reads_texts_alone = (
            family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
            and family not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            and texts_alone
        )
        if reads_texts_alone:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            processor: Any = TextProcessor(tokenizer)
        else:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        kind = AutoModelForCausalLM if reads_texts_alone else AutoModelForImageTextToText
        model = kind.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        raise ConfigError(f"{folder} cannot be loaded as a captioner ({words(error)}).") from error
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Generation continues at the right end, so padding has to stand at the left; an encoder
    # counts its positions from the left, so there it has to stand at the right.
    tokenizer.padding_side = "right" if model.config.is_encoder_decoder else "left"
    _forget_sampling_defaults(model)
    return processor, model.eval().to(device)


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a text: the generation config's and, for BLIP, the separator."""
    text_config = model.config.get_text_config()
    found: set[int] = set()
    for ids in (
        model.generation_config.eos_token_id,
        tokenizer.eos_token_id,
        getattr(text_config, "sep_token_id", None),
    ):
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return sorted(found)


def picture_token(config: Any) -> int | None:
    """The number of the token that stands for a part of a picture in a prompt."""
    found = getattr(config, "image_token_id", None)
    return found if found is not None else getattr(config, "image_token_index", None)


def _forget_sampling_defaults(model: Any) -> None:
    # Many checkpoints ship temperature, top-p or a repetition penalty of their own; what is
    # recorded with a caption must be all that shaped it.
    model.generation_config.update(
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=None,
        max_length=None,
    )


class ModelInputs:
    """From pictures and prompts to what a model takes; threads may call it at once.

    A model with a chat template is given turns, every other one its prompt as it is.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self.chat = bool(getattr(processor, "chat_template", None))
        self._control_tokens = ControlTokens(self._tokenizer)
        # Fast tokenizers refuse two threads at once. Decoding, which costs more, needs no lock.
        self._joining = threading.Lock()

    def __call__(self, images: list[Any], prompts: list[str], system: str = "") -> Any:
        """Model inputs of a batch, on the CPU.

        Args:
            images: Pillow images in RGB, one a prompt; none where the prompts are alone.
        """
        options: dict[str, Any] = {}
        texts: list[str] | None = prompts
        with self._joining:
            if self.chat:
                # Most rows share a prompt, so each distinct one is rendered once.
                rendered = {p: self._render_chat(p, system, bool(images)) for p in set(prompts)}
                texts = [rendered[prompt] for prompt in prompts]
                start = self._tokenizer.bos_token
                if start is not None and texts[0].startswith(start):
                    options["add_special_tokens"] = False
            elif not any(prompts):
                texts = None
            if texts is not None:
                options.update(text=texts, padding=True)
            if images:
                options["images"] = [[image] for image in images] if self.chat else images
            return self._processor(return_tensors="pt", **options)

    def _render_chat(self, prompt: str, system: str, picture: bool) -> str:
        content = [{"type": "image"}] if picture else []
        spoken = {"type": "text", "text": self._control_tokens.out_of(prompt)}
        turns = [{"role": "user", "content": [*content, spoken]}]
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text: str = self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, **NO_THINKING
        )
        return text


class ControlTokens:
    """What a prompt must not spell: "<image>" in an alt text would become a real control token."""

    def __init__(self, tokenizer: Any) -> None:
        found = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        self._tokens = sorted(found, key=len, reverse=True)

    def out_of(self, prompt: str) -> str:
        """`prompt` with spaces in their place."""
        for token in self._tokens:
            prompt = prompt.replace(token, " ")
        return prompt
