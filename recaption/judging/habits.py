"""A captioner's habits of form: how texts begin and end, their case, and their repetitions.

A likelihood model that sees such habits in nearly every caption learns them instead of the picture
(DALL-E 3, section 2: letter case, a final full stop, length, opening with "a"), and then wants
prompts of the same form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recaption.gates.gates import repeated_4gram_shares, zlib_ratios


@dataclass(frozen=True)
class Habits:
    """Shares of the texts, 0..1; nan where there are none.

    Attributes:
        first_characters, last_characters: the commonest ones with their shares, at most three.
        capitalised: first letter in upper case.
        lower_case: no letter in upper case, at least one in lower.
        full_stop: ends with a full stop.
        article: first word is a, an or the.
        zlib_ratio: mean of bytes over zlib's bytes; loops are above 4.
        repeated_4grams: mean share of word 4-grams that occurred before in the text.
    """

    first_characters: dict[str, float]
    last_characters: dict[str, float]
    capitalised: float
    lower_case: float
    full_stop: float
    article: float
    zlib_ratio: float
    repeated_4grams: float


def habits(texts: Sequence[str]) -> Habits:
    """Measure texts that are not empty."""
    stripped = [text.strip() for text in texts]
    letters = [next((c for c in text if c.isalpha()), "") for text in stripped]
    first_words = [text.split(maxsplit=1)[0].lower() if text else "" for text in stripped]

    def share(flags: Sequence[bool]) -> float:
        return float(np.mean(flags)) if flags else float("nan")

    return Habits(
        first_characters=_commonest([text[:1] for text in stripped]),
        last_characters=_commonest([text[-1:] for text in stripped]),
        capitalised=share([letter.isupper() for letter in letters]),
        lower_case=share([text.islower() for text in stripped]),
        full_stop=share([text.endswith(".") for text in stripped]),
        article=share([word in ("a", "an", "the") for word in first_words]),
        zlib_ratio=float(zlib_ratios(stripped).mean()) if texts else float("nan"),
        repeated_4grams=float(repeated_4gram_shares(stripped).mean()) if texts else float("nan"),
    )


def _commonest(characters: Sequence[str], count: int = 3) -> dict[str, float]:
    found = Counter(characters)
    return {c: n / len(characters) for c, n in found.most_common(count)}
