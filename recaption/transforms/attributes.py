"""Attribute words exchanged for others of their class: a caption that is wrong by a known dose."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from recaption.transforms.attribute_words import CLASS_OF
from recaption.transforms.draws import ATTRIBUTE, EXCHANGED, uniform

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_ARTICLE = re.compile(r"\b(an?)(\s+)$", re.IGNORECASE)

Usage = Mapping[str, Mapping[str, int]]
"""Class -> its words -> how often a caption set says them."""


def usage(texts: Iterable[str]) -> Counter[str]:
    """How often the texts say each attribute word."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(word for word in map(str.lower, _WORD.findall(text)) if word in CLASS_OF)
    return found


def by_class(counts: Mapping[str, int]) -> Usage:
    """Counts of words, class by class, words in their alphabet's order."""
    classes: dict[str, dict[str, int]] = {}
    for word in sorted(counts):
        classes.setdefault(CLASS_OF[word], {})[word] = counts[word]
    return classes


def exchange(text: str, number: np.uint64, dose: float, said: Usage) -> tuple[str, int, int]:
    """`text` with the attribute words whose number lies under the dose exchanged.

    What comes instead is drawn among the words of the class that the set says (`said`), as often as
    it says them: no word is new, and none becomes more frequent than it was. Words that stand in
    the caption are not drawn where there are others, so that what is said is false of all in it.

    Returns:
        The text, how many words were exchanged, and how many could have been.
    """
    found = [
        match
        for match in _WORD.finditer(text)
        if len(said.get(CLASS_OF.get(match[0].lower(), ""), ())) > 1
    ]
    if not found:
        return text, 0, 0
    wrong = uniform(number, len(found), ATTRIBUTE) < dose
    if not wrong.any():
        return text, 0, len(found)
    draws = uniform(number, len(found), EXCHANGED)
    present = {match[0].lower() for match in found}
    parts: list[str] = []
    end = 0
    for match, is_wrong, draw in zip(found, wrong.tolist(), draws.tolist(), strict=True):
        if not is_wrong:
            continue
        word = match[0].lower()
        words = said[CLASS_OF[word]]
        others = {w: n for w, n in words.items() if w not in present}
        others = others or {w: n for w, n in words.items() if w != word}
        other = _drawn(others, draw)
        parts += [_with_article(text[end : match.start()], other), _in_case(other, match[0])]
        end = match.end()
    return "".join([*parts, text[end:]]), int(wrong.sum()), len(found)


def _drawn(counts: Mapping[str, int], draw: float) -> str:
    bounds = np.cumsum(list(counts.values()))
    return list(counts)[int(np.searchsorted(bounds, draw * bounds[-1], "right"))]


def _in_case(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _with_article(before: str, word: str) -> str:
    """The text before a word, its "a" or "an" as the word wants it."""
    found = _ARTICLE.search(before)
    if found is None:
        return before
    wanted = "an" if word[0] in "aeiou" else "a"
    said = wanted.capitalize() if found[1][0].isupper() else wanted
    return before[: found.start()] + said + found[2]
