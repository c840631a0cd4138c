"""Tokens of a caption, counted here where the captions table does not tell them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import ConfigError


def clip_tokens(texts: Sequence[str]) -> NDArray[np.float64]:
    """Tokens of CLIP's own byte-pair encoding, start and end included: (N,)."""
    tokenizer = _clip_tokenizer()
    return np.array([len(tokenizer.encode(text)) + 2 for text in texts], np.float64)


def t5_tokens(texts: Sequence[str], folder: Path | str) -> NDArray[np.float64]:
    """Tokens of the T5 tokenizer in `folder`, end included: (N,).

    Raises:
        ConfigError: the folder holds no tokenizer.
    """
    tokenizer = t5_tokenizer(str(folder))
    read = tokenizer(list(texts), add_special_tokens=True).input_ids if texts else []
    return np.array([len(ids) for ids in read], np.float64)


@lru_cache(maxsize=1)
def _clip_tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=2)
def t5_tokenizer(folder: str) -> Any:
    """The tokenizer in `folder`, read from there alone."""
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise ConfigError(f"The T5 tokenizer's folder {folder} does not exist.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no tokenizer ({str(error).splitlines()[0]}).") from error
