"""Which words and numbers of a text another one holds: what a rewrite lost, what a merger added."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recaption.gates.rules import plain

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

_COUNTED = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_ROUND = "thirty forty fifty sixty seventy eighty ninety hundred thousand million"
_NUMBERS = {name: str(n) for n, name in enumerate(_COUNTED)}
_NUMBERS |= {name: name for name in _ROUND.split()}
# "one" is a pronoun as well, and of a single thing nobody says how many there are.
_LITTLE_NUMBERS = {"1"}


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


def added_numbers(texts: Sequence[str], sources: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(N,) whether a text holds a number, in digits or words, that its source does not.

    Where a row has no source, nothing is added.
    """
    return np.array(
        [
            bool(source) and bool(_numbers(text) - _numbers(source) - _LITTLE_NUMBERS)
            for text, source in zip(texts, sources, strict=True)
        ],
        dtype=bool,
    )


def _numbers(text: str) -> set[str]:
    words = plain(text).split()
    return {_NUMBERS.get(word, word) for word in words if word in _NUMBERS or word.isdecimal()}


def _stem(word: str) -> str:
    # Numbers and short words count in full: "12" is not "120", "car" not "card".
    singular = _PLURAL.sub("", word) if len(word) > 3 else word
    return singular[:_STEM] if singular.isalpha() and len(singular) > _STEM else singular
