"""Gates for rewritten prompts: pure functions over columns, as those for captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recaption.gates.characters import without_lost_characters
from recaption.gates.repair import clean, cut_to_sentence, is_cut
from recaption.gates.rules import (
    count_words,
    garbles,
    leaks,
    loops,
    markup,
    options,
    plain,
    reasonings,
    refusals,
)
from recaption.gates.wrapping import unwrap

Flags = npt.NDArray[np.bool_]

# Words that carry no picture: a rewrite may drop or change them.
_LITTLE = """
a an the of in on at to by for from with without and or but as is are was were be been being this
that these those it its his her their our your my there here very some any into onto over under up
down out off than then so if not no s t picture image photo photograph
"""
_LITTLE_WORDS = frozenset(_LITTLE.split())
# "cats" keeps "cat" and "wooden" keeps "wood": the beginning is what has to be there.
_STEM = 4
_PLURAL = re.compile(r"(?<=[sxz])es$|(?<=[cs]h)es$|(?<!s)s$")
_LABEL = re.compile(
    r"^\W*(rewritten|rewrite|rewritten prompt|upsampled prompt|new prompt|prompt|answer|output)"
    r"\s*:\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rewrites:
    """What the gates look at: columns of equal length, and what holds for all rows.

    Attributes:
        texts: after `tidy`.
        finish_reasons: "stop", "length" or None.
        prompts: the originals.
        instruction: what was asked, prompts apart.
    """

    texts: Sequence[str]
    finish_reasons: Sequence[str | None]
    prompts: Sequence[str]
    instruction: str
    min_words: int
    max_words: int


def judge_rewrites(rewrites: Rewrites) -> dict[str, Flags]:
    """(N,) flags of every gate, by name, in their order."""
    words = count_words(rewrites.texts)
    pairs = zip(rewrites.texts, rewrites.finish_reasons, strict=True)
    cut = [reason == "length" and not is_cut(text, reason) for text, reason in pairs]
    return {
        "empty": words == 0,
        "refusal": refusals(rewrites.texts),
        "reasoning": reasonings(rewrites.texts),
        "options": options(rewrites.texts),
        "garbled": garbles(rewrites.texts),
        "prompt_leak": leaks(rewrites.texts, [rewrites.instruction]),
        "loop": loops(rewrites.texts),
        "url_or_markup": markup(rewrites.texts),
        "truncated": np.array(cut, dtype=bool),
        "too_short": words < rewrites.min_words,
        "too_long": words > rewrites.max_words,
        "lost_words": kept_words(rewrites.prompts, rewrites.texts) < 1.0,
    }


def kept_words(prompts: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Share of each prompt's words, little ones left out, that its rewrite still holds.

    A word counts as kept where a word of the rewrite equals it or shares its first four letters.
    1 for a prompt without such words. Cost: O(words of prompt + words of text).
    """
    shares = []
    for prompt, text in zip(prompts, texts, strict=True):
        wanted = [
            word for word in dict.fromkeys(plain(prompt).split()) if word not in _LITTLE_WORDS
        ]
        there = {_stem(word) for word in plain(text).split()}
        kept = sum(_stem(word) in there for word in wanted)
        shares.append(kept / len(wanted) if wanted else 1.0)
    return np.array(shares, dtype=np.float64)


def tidy(text: str, finish_reason: str | None, min_words: int) -> str:
    """One line, without a label such as "Rewritten:" or quotes around all of it.

    A text that was cut off ends with its last whole sentence, if that leaves `min_words`.
    """
    line = " ".join(without_lost_characters(clean(text)).split())
    line = unwrap(_LABEL.sub("", line))
    if finish_reason == "length":
        whole = cut_to_sentence(line)
        if whole is not None and len(whole.split()) >= min_words:
            return whole
    return line


def _stem(word: str) -> str:
    # Numbers and short words count in full: "12" is not "120", "car" not "card".
    singular = _PLURAL.sub("", word) if len(word) > 3 else word
    return singular[:_STEM] if singular.isalpha() and len(singular) > _STEM else singular
