"""What can be said of an alt text without a model, and a readable copy of it."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.scoring.scorers.scorer import Column, Columns, Scorer
from curate.scoring.scorers.text_patterns import EMAIL, FILE_NAME, HTML, PHONE, PHRASES, URL, WHOLE


class TextBasics(Scorer):
    """Basic quantities of the alt text.

    text_chars          characters, 0 for an empty or missing text
    text_words          runs of non-space characters
    text_symbol_share   characters that are neither letter, mark, digit nor space, 0 to 1
    text_digit_share    characters that are decimal digits, 0 to 1
    text_repetition     1 - distinct words / words (lower case), 0 to 1
    text_is_filename    the whole text is a file name or a machine's number
    text_is_boilerplate the text stands for any picture ("image 12", "click to enlarge")
    text_has_boilerplate a phrase of that kind occurs in it ("red fox - stock photo")
    text_has_url, text_has_html
    text_has_email, text_has_phone   personal data, by their form
    text_hash           64 bits of the text in lower case with single spaces; equal texts share it,
                        so `text_count` in a rule says how often the text recurs in the dataset

    Shares, repetition and hash are null where there is no text to take them of. Lists of phrases
    are of the larger European languages, Chinese, Japanese and Korean; file names and URLs need no
    language. All but the hash runs in Arrow's vectorised string kernels (RE2).
    """

    name = "text_basics"
    needs = ("alt_text",)
    adds = (
        "text_chars",
        "text_words",
        "text_symbol_share",
        "text_digit_share",
        "text_repetition",
        "text_is_filename",
        "text_is_boilerplate",
        "text_has_boilerplate",
        "text_has_url",
        "text_has_html",
        "text_has_email",
        "text_has_phone",
        "text_hash",
    )

    def signature(self) -> dict[str, Any]:
        """The version of the quantities and the patterns themselves."""
        return {
            "version": 2,
            "patterns": [FILE_NAME, WHOLE, PHRASES, URL, HTML, EMAIL, PHONE],
        }

    def score(self, columns: Mapping[str, Column]) -> Columns:
        text = pc.fill_null(pa.array(columns["alt_text"], pa.string()), "")
        trimmed = pc.utf8_trim_whitespace(text)
        lower = pc.utf8_lower(trimmed)
        chars = pc.utf8_length(text)
        # A full stop at the end does not make a file name or a boilerplate text a caption.
        bare = pc.replace_substring_regex(lower, r"[\s.!:;,*\[\](){}\"']+$", "")
        bare = pc.replace_substring_regex(bare, r"^[\s*\[\](){}\"']+", "")
        # Without the phrases, and without what is no letter at either end, what is said of it?
        said = pc.replace_substring_regex(bare, PHRASES, " ")
        said = pc.replace_substring_regex(said, r"^[^\pL]+|[^\pL\d]+$", "")
        phrase = pc.match_substring_regex(lower, PHRASES)
        boilerplate = pc.or_(
            pc.match_substring_regex(pc.if_else(phrase, said, bare), rf"^({WHOLE})$"),
            pc.and_(phrase, pc.match_substring_regex(said, r"^[\d\W]*$")),
        )
        words, repetition = _words(lower)
        return {
            "text_chars": chars.cast(pa.int32()),
            "text_words": words,
            "text_symbol_share": _share(text, r"[^\pL\pM\pN\s]", chars),
            "text_digit_share": _share(text, r"\p{Nd}", chars),
            "text_repetition": repetition,
            "text_is_filename": pc.match_substring_regex(bare, FILE_NAME),
            "text_is_boilerplate": boilerplate,
            "text_has_boilerplate": phrase,
            "text_has_url": pc.match_substring_regex(lower, URL),
            "text_has_html": pc.match_substring_regex(lower, HTML),
            "text_has_email": pc.match_substring_regex(lower, EMAIL),
            "text_has_phone": pc.match_substring_regex(lower, PHONE),
            "text_hash": _hashes(lower),
        }


def _hashes(lower: pa.Array) -> pa.Array:
    single = pc.replace_substring_regex(lower, r"\s+", " ").to_pylist()
    digests = [
        int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") if text else None
        for text in single
    ]
    # Unsigned: a hash is a name and no quantity, so nobody should draw its histogram.
    return pa.array(digests, pa.uint64())


def _share(text: pa.Array, pattern: str, chars: pa.Array) -> pa.Array:
    count = pc.count_substring_regex(text, pattern).cast(pa.float32())
    empty = pc.equal(chars, 0)
    return pc.divide(count, pc.if_else(empty, None, chars).cast(pa.float32()))


def _words(text: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Words of each text, and 1 - distinct / words (null without words)."""
    split = pc.utf8_split_whitespace(text)
    row = pc.list_parent_indices(split).to_numpy()
    word = pc.list_flatten(split)
    filled = pc.not_equal(word, "").to_numpy(zero_copy_only=False)
    row, word = row[filled], word.filter(pa.array(filled))
    words = np.bincount(row, minlength=len(text))
    identity = word.dictionary_encode().indices.to_numpy().astype(np.int64)
    distinct_rows = np.unique(row.astype(np.int64) * (identity.max(initial=0) + 1) + identity) // (
        identity.max(initial=0) + 1
    )
    distinct = np.bincount(distinct_rows, minlength=len(text))
    repetition = 1 - distinct / np.maximum(words, 1)
    return (
        pa.array(words, pa.int32()),
        pa.array(repetition.astype(np.float32), mask=words == 0),
    )


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
