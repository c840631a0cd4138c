"""Tokens of a caption in the two text encoders that diffusion models read it with.

CLIP's are counted with open_clip's own vocabulary and rules, run by the `tokenizers` package: the
same counts as open_clip's tokenizer, some thirty times as fast. T5's vocabulary is one for all
sizes of T5, so t5-small stands for T5-XXL.
"""

from __future__ import annotations

import gzip
import importlib.util
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError

AUTO = "auto"
CACHED = "cached"
AUTO_T5 = "google-t5/t5-small"
# Merges that open_clip takes of its vocabulary file, after the header line.
_MERGES = 49152 - 256 - 2
_MARKS = ("<start_of_text>", "<end_of_text>")
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_T5_FILES = ("tokenizer.json", "spiece.model")
# Texts that open_clip's cleaning leaves alone but for quotation marks and spaces. Wrongly decoded
# UTF-8 has two such letters side by side, and an ampersand may be HTML's: these it must see.
_PLAIN = re.compile(r"(?:[ -%'-~\n\t]|[‘’“”–—°×éèêáäöüñçåøíó](?=[ -~\n\t]|\Z))*")
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")

logger = logging.getLogger(__name__)


class TokenCounter:
    """Counts tokens of captions; picklable, the vocabularies are loaded by `open`."""

    def __init__(self, t5_tokenizer: str = AUTO) -> None:
        """Find T5's vocabulary.

        Args:
            t5_tokenizer: folder or hub id; "auto" takes google-t5/t5-small from the hub or its
                cache, and warns once where it cannot be had; "cached" takes it from the cache or
                goes without; "" counts no T5 tokens.

        Raises:
            ConfigError: a tokenizer that was named cannot be loaded.
        """
        self._t5_path = _find_t5(t5_tokenizer)
        self._t5: Any = None
        if self._t5_path is not None and t5_tokenizer not in (AUTO, CACHED):
            self.open()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_t5": None}

    def open(self) -> None:
        """Load T5's vocabulary, if any, and CLIP's.

        Raises:
            ConfigError: the T5 file is broken.
        """
        if self._t5 is None and self._t5_path is not None:
            self._t5 = _load_t5(self._t5_path)

    def clip(self, texts: Sequence[str]) -> list[int]:
        """Tokens of CLIP, start and end included, not cut off at 77; about 20 us a caption."""
        encodings = _clip_tokenizer().encode_batch_fast([_clip_clean(text) for text in texts])
        return [len(encoding.ids) + 2 for encoding in encodings]

    def t5(self, texts: Sequence[str]) -> list[int | None]:
        """Tokens of T5, end included; None where there is no tokenizer."""
        self.open()
        if self._t5 is None:
            return [None] * len(texts)
        if not hasattr(self._t5, "encode_batch"):
            # SentencePiece adds no end token of its own.
            return [len(ids) + 1 for ids in self._t5.encode(list(texts))] if texts else []
        return [len(encoding.ids) for encoding in self._t5.encode_batch_fast(list(texts))]


@lru_cache(maxsize=1)
def _clip_tokenizer() -> Any:
    """open_clip's byte-pair encoding without its start and end tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz") as packed:
        lines = packed.read().decode("utf-8").split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    # open_clip's order: the 256 bytes, the same at a word's end, then one token a merge.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), *_MARKS]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.add_special_tokens(list(_MARKS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _clip_clean(text: str) -> str:
    """The text as open_clip's tokenizer cleans it: mended, unescaped, single spaces, lower case."""
    if _PLAIN.fullmatch(text):
        return " ".join(text.translate(_STRAIGHT).split()).lower()
    from open_clip.tokenizer import basic_clean

    return " ".join(basic_clean(text).split()).strip().lower()


@lru_cache(maxsize=8)  # one search and one warning a process, however many stages
def _find_t5(source: str) -> Path | None:
    """The vocabulary's file; None where none is wanted, or "auto" or "cached" cannot be had."""
    if not source:
        return None
    if source not in (AUTO, CACHED):
        folder = Path(source).expanduser()
        if folder.is_dir():
            for name in _T5_FILES:
                if (folder / name).is_file():
                    return folder / name
            raise ConfigError(f"The T5 tokenizer {source} holds neither {' nor '.join(_T5_FILES)}.")
    name = AUTO_T5 if source in (AUTO, CACHED) else source
    try:
        return _hub_file(name, local=source == CACHED, probe=source == AUTO)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        if source == CACHED:
            return None
        if source == AUTO:
            logger.warning("t5_tokens stay empty: %s cannot be had (%s)", AUTO_T5, reason)
            return None
        raise ConfigError(f"The T5 tokenizer {source!r} cannot be loaded ({reason}).") from error


def _hub_file(name: str, local: bool, probe: bool) -> Path:
    """The vocabulary's file in the hub's cache, fetched if it is not there.

    Args:
        local: fetch nothing.
        probe: ask once whether the hub answers; its own client would try for a minute.

    Raises:
        OSError, ValueError, RuntimeError: it cannot be had.
    """
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in _T5_FILES:
        try:
            return Path(hf_hub_download(name, file, local_files_only=True))
        except EntryNotFoundError:
            continue
    if local:
        raise FileNotFoundError(f"{name} is not in the hub's cache")
    if probe and not constants.HF_HUB_OFFLINE:
        asked = urllib.request.Request(hf_hub_url(name, _T5_FILES[0]), method="HEAD")
        # An answer of any kind is one; what it says, the hub's client finds out.
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(asked, timeout=5):
            pass
    for file in _T5_FILES[:-1]:
        try:
            return Path(hf_hub_download(name, file))
        except LocalEntryNotFoundError:
            raise  # the hub cannot be reached: the other file would take as long to fail
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(name, _T5_FILES[-1]))


def _load_t5(path: Path) -> Any:
    if path.suffix == ".json":
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing narrower
            raise ConfigError(f"The T5 tokenizer {path} cannot be loaded ({error}).") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"The T5 tokenizer {path} cannot be loaded ({error}).") from error
