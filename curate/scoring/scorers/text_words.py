"""Words that a list names: adult terms and slurs of lists that are shipped, and a list of your own.

A list is a text file with one word or phrase a line; an empty line or one that starts with # says
nothing. A term counts as a whole word, in any case, and an apostrophe or hyphen ends a word: the
list holds "sex" and "Sussex" is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.scoring.scorers.scorer import Column, Columns, Scorer

if TYPE_CHECKING:
    from curate.scoring.settings import ScoreSettings

LISTS = Path(__file__).parent / "word_lists"
# RE2 compiles one alternation of all terms; a very long list is cut into several.
_TERMS_A_PATTERN = 1000


class TextWords(Scorer):
    """text_has_adult_words and text_has_slurs by the shipped lists, text_has_listed_words by yours.

    The shipped lists are short on purpose: English, and only words that hardly mean anything else.
    They find texts to look at, and prove nothing: a report about abuse holds the abuser's words.

    Args:
        own: a list of your own, in any language; adds the third column.

    Raises:
        ConfigError: the list is missing, not UTF-8, or empty.
    """

    name = "text_words_listed"
    needs = ("alt_text",)

    def __init__(self, own: str | None = None) -> None:
        self._lists = {
            "text_has_adult_words": read_list(LISTS / "adult.txt"),
            "text_has_slurs": read_list(LISTS / "slurs.txt"),
        }
        if own is not None:
            self._lists["text_has_listed_words"] = read_list(Path(own))
        self.adds = tuple(self._lists)

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[TextWords]:
        """With the user's own list, if there is one."""
        return [cls(settings.word_list)]

    def signature(self) -> dict[str, Any]:
        """The lists themselves."""
        return {"version": 1, "lists": fingerprint(self._lists)}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        text = pc.utf8_lower(pc.fill_null(pa.array(columns["alt_text"], pa.string()), ""))
        return {name: _holds(text, terms) for name, terms in self._lists.items()}


def read_list(path: Path) -> list[str]:
    """The terms of a list, in lower case, sorted.

    Raises:
        ConfigError: missing, not UTF-8, or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(f"The word list {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The word list {path} cannot be read as UTF-8 ({error}).") from error
    kept = (line.strip().lower() for line in lines)
    terms = sorted({" ".join(line.split()) for line in kept if line and not line.startswith("#")})
    if not terms:
        raise ConfigError(f"The word list {path} holds no words; write one a line.")
    return terms


def _holds(text: pa.Array, terms: list[str]) -> pa.Array:
    edge = r"[^\pL\pM\pN]"
    found = []
    for start in range(0, len(terms), _TERMS_A_PATTERN):
        some = terms[start : start + _TERMS_A_PATTERN]
        words = "|".join(re.escape(term).replace(r"\ ", r"\s+") for term in some)
        found.append(pc.match_substring_regex(text, rf"(^|{edge})({words})($|{edge})"))
    return reduce(pc.or_, found)
