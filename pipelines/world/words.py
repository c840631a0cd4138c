"""The world's closed vocabulary: names of places and relations, and how text becomes words.

A place is one hyphenated word ("top-left"), so that a word-level tokenizer spends one token on it.
"""

import re

from pipelines.world.palette import BACKGROUND_COLOURS, BACKGROUND_STYLES, OBJECT_COLOURS, SIZES
from pipelines.world.shapes import SHAPES

PLACES: dict[int, tuple[str, ...]] = {
    2: ("top-left", "top-right", "bottom-left", "bottom-right"),
    3: (
        "top-left",
        "top-center",
        "top-right",
        "center-left",
        "center",
        "center-right",
        "bottom-left",
        "bottom-center",
        "bottom-right",
    ),
}
"""Grid side -> name of every cell in raster order."""

RELATIONS: dict[str, tuple[int, int]] = {
    "left of": (0, -1),
    "right of": (0, 1),
    "above": (-1, 0),
    "below": (1, 0),
}
"""Relation -> (rows, columns) from the anchor's cell to the subject's: the next cell that way."""

COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

STOP_WORDS = frozenset({"a", "an", "the", "in", "at", "on", "of", "is", "and", "with", "there"})
"""Words that a compact tokenizer may drop from captions without losing a fact."""

_SPEECH = (
    "a an the in at on of is are and with there it image picture photo shape shapes background"
)
_WEB = (
    "img dsc jpg png screenshot final copy new buy now free shipping click to enlarge best price "
    "clip art wallpaper stock vector logo home page banner sale off for download thumbnail"
)
_QUALITY = "sharp clean blurry noisy faded safe unsafe sticker"

VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *(*SIZES, *OBJECT_COLOURS, *SHAPES, *BACKGROUND_COLOURS, *BACKGROUND_STYLES),
            *(*PLACES[2], *PLACES[3]),
            *("left", "right", "above", "below"),
            *COUNTS[1:],
            *_SPEECH.split(),
            *_WEB.split(),
            *_QUALITY.split(),
            *"0123456789",
            *(",", ".", ":"),
        ]
    )
)
"""Every word that the writers use, in a fixed order; anything else on the web is out of it."""

WORD_PATTERN = r"(?:top|center|bottom)-(?:left|center|right)|[a-z]+|[0-9]|[,.:]"
"""Applied to lower-cased text; everything between matches is a separator."""

SYNONYMS: dict[str, str] = {
    "tiny": "small",
    "little": "small",
    "big": "large",
    "huge": "large",
    "grey": "gray",
    "solid": "plain",
    "stripes": "striped",
    "stripy": "striped",
    "checks": "checkered",
}
"""What a person may type for a word of the world."""

_WORD = re.compile(WORD_PATTERN)
_TYPED_PLACE = re.compile(
    r"\b(top|upper|bottom|lower|cent(?:er|re)|middle)[ -](left|right|cent(?:er|re)|middle)\b"
)
_PLACE_BEFORE = re.compile(r"((?:top|center|bottom)-(?:left|center|right)|\bcenter) *:")
_ROWS = {"upper": "top", "lower": "bottom"}
_MIDDLE = ("centre", "middle")


def words(text: str) -> list[str]:
    """Text to words and punctuation marks, lower-cased; digits stand alone."""
    return _WORD.findall(text.lower())


def plain_words(text: str) -> list[str]:
    """`words` with everyday words and signs replaced by the world's own.

    "tiny" is "small", "upper left" is "top-left", "&" and ";" end a clause, and a place that
    announces an object ("top-left: ring") does not.
    """
    text = _TYPED_PLACE.sub(_place, re.sub("[;&+]", ",", text.lower()))
    return [SYNONYMS.get(word, word) for word in words(_PLACE_BEFORE.sub(r"\1 ", text))]


def _place(match: re.Match[str]) -> str:
    row, column = ("center" if part in _MIDDLE else part for part in match.groups())
    row = _ROWS.get(row, row)
    return row if row == column else f"{row}-{column}"


def article(word: str) -> str:
    """`word` with "a" or "an" before it."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
