"""The rules of the gates over texts alone: patterns, repetition, copies. Pure functions.

Text in quotes is text in the picture: what it says is never held against a caption, unless all of
the caption stands in quotes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.characters import REPLACEMENT
from recaption.gates.patterns import (
    BLOCKS,
    BOILERPLATE,
    CHAT,
    TAGS,
    URL,
)
from recaption.gates.reasoning_patterns import OPTIONS, REASONING
from recaption.gates.refusal_patterns import REFUSAL_ANYWHERE, REFUSAL_OPENING

Flags = npt.NDArray[np.bool_]

# A Han or kana character counts as a word: these scripts put no spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"
_WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}]*[\pL\pN][^\s{_UNSPACED}]*"
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")

_NUMBER = re.compile(r"(?<!\d)\d{1,6}(?!\d)")

# Measured on good descriptive captions and on loops: zlib ratio 1.5 to 1.9 against 10.8 to 22.9,
# share of repeated 4-grams 0 to 0.01 against 0.92 to 0.99. The limits lie between, nearer the good.
LOOP_ZLIB_RATIO = 4.0
LOOP_REPEATED_SHARE = 0.4
# A loop often starts behind a good beginning, so the last words are also judged alone.
LOOP_TAIL_WORDS = 32
# A calendar page counts to 31.
LOOP_COUNTED_NUMBERS = 32

_QUOTED = (
    r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』|‹[^›]*›|"
    r"(^|[\s(\[])'[^']*('[a-z][^']*)*'|(^|[\s(\[])‘[^’]*(’[a-z][^’]*)*’"
)
# A caption is shorter; `re` takes quadratic time on what a hostile server may send.
_SEARCHED_CHARACTERS = 8000
# Four instruction words in a row occur by chance, six do not.
LEAK_WORDS = 6
# A caption of five words or more is a copy if this share of its three-word runs is the alt text's.
COPY_SHARE = 0.8
COPY_WORDS = 5


def count_words(texts: Sequence[str]) -> npt.NDArray[np.int32]:
    """Words of each text: runs between spaces that hold a letter or digit."""
    counts = pc.count_substring_regex(pa.array(texts, pa.string()), _WORD)
    words: npt.NDArray[np.int32] = counts.to_numpy(zero_copy_only=False).astype(np.int32)
    return words


def zlib_ratios(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Length of each text's UTF-8 bytes over their zlib length; high where it repeats itself."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return np.array([len(raw) / len(zlib.compress(raw, 6)) for raw in encoded], dtype=np.float64)


def repeated_4gram_shares(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Share of each text's word 4-grams that occurred before in it; 0 below five words."""
    return np.array([_repeated_share(_TOKEN.findall(t.lower())) for t in texts], dtype=np.float64)


def counted_numbers(texts: Sequence[str]) -> npt.NDArray[np.int32]:
    """Numbers of each text's longest run with equal steps, such as 1. 2. 3. or 10, 20, 30."""
    return np.array([_longest_count(text) for text in texts], dtype=np.int32)


def loops(texts: Sequence[str]) -> Flags:
    """Texts that repeat themselves, in all or in their last words, or that count without end."""
    tails = [" ".join(_TOKEN.findall(text)[-LOOP_TAIL_WORDS:]) for text in texts]
    looping: Flags = (
        (zlib_ratios(texts) >= LOOP_ZLIB_RATIO)
        | (repeated_4gram_shares(texts) >= LOOP_REPEATED_SHARE)
        | (repeated_4gram_shares(tails) >= LOOP_REPEATED_SHARE)
        | (counted_numbers(texts) >= LOOP_COUNTED_NUMBERS)
    )
    return looping


def refusals(texts: Sequence[str]) -> Flags:
    """Texts in which the captioner speaks about itself, asks for a picture, sees nothing, or that
    report an error."""
    spoken = unquoted(texts)
    return matches(spoken, REFUSAL_ANYWHERE) | _finds(spoken, REFUSAL_OPENING)


def reasonings(texts: Sequence[str]) -> Flags:
    """Texts in which the captioner thinks aloud."""
    return _finds(unquoted(texts), REASONING)


def options(texts: Sequence[str]) -> Flags:
    """Texts that offer several captions to choose from."""
    return _finds(unquoted(texts), OPTIONS)


def garbles(texts: Sequence[str]) -> Flags:
    """Texts with a replacement character, which stands where a character was lost."""
    return np.array([REPLACEMENT in text for text in texts], dtype=bool)


def leaks(texts: Sequence[str], instructions: Sequence[str]) -> Flags:
    """Texts that repeat an instruction, hold a marker of a chat format, or talk about the task."""
    shingles: set[tuple[str, ...]] = set()
    for instruction in instructions:
        shingles.update(_grams(plain(instruction).split(), LEAK_WORDS))
    echoes = [
        not shingles.isdisjoint(_grams(plain(text).split(), LEAK_WORDS)) if shingles else False
        for text in texts
    ]
    spoken = unquoted(texts)
    return _finds(spoken, CHAT) | matches(spoken, BOILERPLATE) | np.array(echoes, dtype=bool)


def markup(texts: Sequence[str]) -> Flags:
    """Texts with HTML, Markdown, JSON or a web address outside of quotes."""
    spoken = unquoted(texts)
    return matches(texts, BLOCKS) | matches(spoken, TAGS) | matches(spoken, URL)


def copies(texts: Sequence[str], alt_texts: Sequence[str | None]) -> Flags:
    """Texts that equal their alt text but for case and punctuation, or are nearly all taken from
    it."""
    pairs = zip(texts, alt_texts, strict=True)
    return np.array([_is_copy(plain(text), plain(alt or "")) for text, alt in pairs], bool)


def unquoted(texts: Sequence[str]) -> pa.Array:
    """The texts without their quoted parts, and with straight apostrophes.

    A text that says nothing outside of quotes is whole.
    """
    whole = pa.array(texts, pa.string())
    array = pc.replace_substring_regex(whole, _QUOTED, " ")
    silent = pc.invert(pc.match_substring_regex(array, r"[\pL\pN]"))
    array = pc.if_else(silent, whole, array)
    # Typographic apostrophes would hide "I’m sorry".
    return pc.replace_substring(array, "’", "'")


def matches(texts: Sequence[str] | pa.Array, pattern: str) -> Flags:
    """Where RE2's `pattern` is found."""
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
    found = pc.match_substring_regex(array, pattern)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _finds(texts: pa.Array, pattern: str) -> Flags:
    """Where `re`'s pattern is found. It is compiled once; Arrow compiles RE2's at every call, which
    for the long lists takes longer than a batch of captions."""
    compiled = _compiled(pattern)
    found = [compiled.search(text[:_SEARCHED_CHARACTERS]) for text in texts.to_pylist()]
    return np.array([match is not None for match in found], dtype=bool)


def plain(text: str) -> str:
    """Lower case, letters and digits only, single spaces."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _is_copy(text: str, alt: str) -> bool:
    if not alt or text == alt:
        return bool(alt)
    words = text.split()
    if len(words) < COPY_WORDS:
        return False
    runs = set(_grams(words, 3))
    return len(runs & set(_grams(alt.split(), 3))) >= COPY_SHARE * len(runs)


def _grams(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


def _repeated_share(words: Sequence[str]) -> float:
    grams = _grams(words, 4)
    return 1.0 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0


def _longest_count(text: str) -> int:
    longest = run = 1
    # Six digits are enough to count with, and int() of a million takes seconds.
    numbers = [int(digits) for digits in _NUMBER.findall(text)]
    for before, here, behind in zip(numbers, numbers[1:], numbers[2:], strict=False):
        run = run + 1 if behind - here == here - before != 0 else 1
        longest = max(longest, run)
    return longest + 1
