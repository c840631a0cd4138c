"""A transformers captioner from its folder: safetensors only, no code of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from curate.base.errors import ConfigError
from recaption.engines.batches import words


def load_captioner(folder: Path | str, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """(processor, model on its device), ready for batches and for greedy search.

    Raises:
        ConfigError: the folder holds no captioner that transformers can load.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bar would tear up the command's own
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
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
