"""CLIP's tokenizers: which one reads a text, and what of it lies behind the context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.base.files import read_json
from curate.scoring.scorers.clip_source import import_open_clip

if TYPE_CHECKING:
    import torch


def tokenizer_mark(tokenizer: str | None) -> Any:
    """What identifies the tokenizer: its content; ConfigError where there is none."""
    if tokenizer is None:
        return None
    path = Path(tokenizer)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"The CLIP tokenizer {tokenizer} is no folder with a tokenizer.json.")
    return read_json(path)


def load_tokenizer(name: str, tokenizer: str | None) -> Any:
    """open_clip's tokenizer of model `name`, or that of the folder `tokenizer`."""
    open_clip = import_open_clip()
    if tokenizer is None:
        return open_clip.get_tokenizer(name)
    folder = Path(tokenizer)
    folder = folder if folder.is_dir() else folder.parent
    if name.startswith("local-dir:"):
        config = read_json(Path(name.removeprefix("local-dir:")) / "open_clip_config.json")
        config = config["model_cfg"]
    else:
        config = open_clip.get_model_config(name) or {}
    text = config.get("text_cfg", {})
    # SigLIP's texts are lower case without punctuation; its config says so under tokenizer_kwargs.
    return open_clip.tokenizer.HFTokenizer(
        str(folder),
        context_length=text.get("context_length", 77),
        **text.get("tokenizer_kwargs", {}),
    )


def truncated_tokens(tokenize: Any, text: str) -> int:
    """How many tokens of `text` one of open_clip's tokenizers leaves out to fit the context."""
    room = int(tokenize.context_length)
    # A token stands for at least one byte, so most texts need no second look.
    if len(text.encode("utf-8", "replace")) + 2 <= room // 2:
        return 0
    clean = getattr(tokenize, "clean_fn", None)
    if hasattr(tokenize, "tokenizer"):  # a tokenizer of transformers, with its own special tokens
        ids = tokenize.tokenizer(clean(text) if clean else text).input_ids
        return max(0, len(ids) - room)
    return max(0, len(tokenize.encode(text)) + 2 - room)  # start and end of text


def tokens_of(tokenize: Any, texts: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
    """Tokens (B, L) int64, padded, of one of open_clip's tokenizers; and `truncated_tokens`.

    open_clip's own tokenizer is slow Python, so it reads each text once for both.
    """
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    if type(tokenize) is not SimpleTokenizer or tokenize.reduction_fn is not None:
        return tokenize(texts), [truncated_tokens(tokenize, text) for text in texts]
    room = int(tokenize.context_length)
    tokens = torch.zeros(len(texts), room, dtype=torch.long)
    left_out = []
    for row, text in enumerate(texts):
        ids = tokenize.encode(text)
        left_out.append(max(0, len(ids) + 2 - room))
        kept = [tokenize.sot_token_id, *ids[: room - 2], tokenize.eot_token_id]
        tokens[row, : len(kept)] = torch.tensor(kept)
    return tokens, left_out
