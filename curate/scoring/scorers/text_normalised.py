"""A readable copy of the alt text; the text itself stays as it came."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curate.scoring.scorers.scorer import Column, Columns, Scorer

# Comments, and whatever looks like a tag: a letter behind "<" keeps "5 < 6 > 2" whole.
_TAG = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]*>", re.DOTALL | re.I)
# Spaces of every kind and control characters; and what is invisible and joins nothing. The joiners
# U+200C and U+200D stay: Persian and emoji need them.
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def normalised(text: str) -> str:
    """Entities and tags of HTML removed, Unicode NFC, each run of whitespace one space.

    Entities are read twice, because lists hold "&amp;quot;" as often as "&quot;"; so a text that
    is about an entity loses it. Zero-width characters and direction marks go; joiners stay.
    """
    plain = html.unescape(html.unescape(text)) if "&" in text else text
    if "<" in plain:
        plain = _TAG.sub(" ", plain)
    plain = unicodedata.normalize("NFC", _INVISIBLE.sub("", plain))
    return _SPACE.sub(" ", plain).strip()


class TextNormalised(Scorer):
    """text_normalised: the alt text made readable; null where there is none."""

    name = "text_normalised"
    needs = ("alt_text",)
    adds = ("text_normalised",)

    def signature(self) -> dict[str, Any]:
        """The version of the rules and of Unicode."""
        return {"version": 1, "unicode": unicodedata.unidata_version}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        """Normalise each text."""
        texts = [None if text is None else normalised(text) for text in columns["alt_text"]]
        return {"text_normalised": pa.array(texts, pa.string())}
