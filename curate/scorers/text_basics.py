"""What can be said of an alt text without a model: length, symbols, file names, boilerplate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.scorers.scorer import Column, Columns, Scorer

_EXTENSION = r"\.(jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|jfif)"

# A text that is the name of a file and nothing else: it ends in an image extension, or it is one
# word that a camera, a phone, a screenshot tool or a content hash made.
FILE_NAME = "|".join(
    [
        rf"^\S*{_EXTENSION}(\?\S*)?$",
        rf"^[\w\-() ]{{1,80}}{_EXTENSION}$",
        r"^(img|image|dsc[nf_]?|dscf|dscn|pict?|p|photo|picture|scan|screenshot|screen[-_ ]?shot|"
        r"vid|wp|pxl|mvi|imgp|gopr|sam|cam|file|untitled|download|unnamed|thumb|thumbnail|"
        r"large|small|medium|banner|slide|asset|fullsizerender)[-_ ]*[\d(][-_\d()x ]*$",
        r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",  # a UUID
        r"^[0-9a-f]{16,}$",  # a content hash
        r"^[\d_\-]{5,}[a-z]?$",  # a number or a date
        r"^[a-z0-9]+([_\-][a-z0-9]+)*[_\-]\d{2,}([_\-x][a-z0-9]+)*$",  # words-joined_0123
    ]
)

# A text that stands for any picture: one of these is the whole text ...
_WHOLE = (
    r"an? (image|photo|picture)|(the )?(image|photo|picture|photograph|pic|img|graphic|figure|"
    r"illustration|thumbnail|logo|icon|avatar|banner|background|placeholder|untitled|default|"
    r"none|null|undefined|n/?a|alt|alt text|caption|title|no title|no caption|no description|"
    r"description|image description|image alt text|product image|featured image|main image|"
    r"hero image|header image|cover image|profile (image|photo|picture)|no image|"
    r"no image available|image not (found|available)|image coming soon|loading|blank|spacer|"
    r"gallery image|post image|article image|stock (image|photo|photography|picture)|slide|home|"
    r"(home ?page|web ?site|site|page) (banner|image|photo|picture|logo|header)|sale|new arrivals?|"
    r"advert(isement)?)( ?#?\d+( ?(of|/) ?\d+)?)?"
)
# ... or what is left of it without these.
_PHRASES = (
    r"(click|tap) (here|image|(to|on|for)( (enlarge|zoom|view|open|expand|image|more))?)|"
    r"(view|see) (larger|full|all|more|details)|enlarge (image|photo|picture)|zoom in|"
    r"(read|learn|show) more|continue reading|"
    r"buy now|shop now|add to (cart|bag|basket|wishlist|favou?rites)|free shipping|"
    r"(royalty|copyright)[ -]free|stock (photo|image|photography|vector|illustration|picture)s?\b|"
    r"shutterstock|istock|getty images|dreamstime|alamy|depositphotos|all rights reserved|"
    r"photo (by|credit|courtesy)|image (by|credit|courtesy|source)|(share|pin|save) (on|to|it)\b|"
    r"follow us|subscribe|sign up|log ?in to|lorem ipsum|(pinterest|facebook|twitter|instagram|"
    r"whatsapp) (icon|logo|button)|image (not found|coming soon|unavailable)|"
    r"high[- ]resolution (image|photo|picture)|free download|download (free|now|image|wallpaper)|"
    r"\d+ ?% off|(special|limited) offer|on sale|(best|lowest) price|for download|"
    r"[©®™]|\(c\) ?\d{4}|copyright"
)
URL = r"(https?://|www\.)\S+|\b[a-z0-9\-]+\.(com|org|net|io|co\.uk|de|ru|fr|info|biz)\b"
HTML = r"<[a-z/!][^<>]*>|&(amp|nbsp|quot|lt|gt|apos|#\d{1,6}|#x[0-9a-f]{1,6});"


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

    Shares and repetition are null where there is no text to take a share of. Lists and patterns
    are English, as are the alt texts of the recipes that use them. All of it runs in Arrow's
    vectorised string kernels (RE2): about 10 us a text.
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
    )

    def signature(self) -> dict[str, Any]:
        """The version of the quantities and the patterns themselves."""
        return {"version": 1, "patterns": [FILE_NAME, _WHOLE, _PHRASES, URL, HTML]}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        text = pc.fill_null(pa.array(columns["alt_text"], pa.string()), "")
        trimmed = pc.utf8_trim_whitespace(text)
        lower = pc.utf8_lower(trimmed)
        chars = pc.utf8_length(text)
        # A full stop at the end does not make a file name or a boilerplate text a caption.
        bare = pc.replace_substring_regex(lower, r"[\s.!:;,*\[\](){}\"']+$", "")
        bare = pc.replace_substring_regex(bare, r"^[\s*\[\](){}\"']+", "")
        # Without the phrases, and without what is no letter at either end, what is said of it?
        said = pc.replace_substring_regex(bare, _PHRASES, " ")
        said = pc.replace_substring_regex(said, r"^[^\pL]+|[^\pL\d]+$", "")
        phrase = pc.match_substring_regex(lower, _PHRASES)
        boilerplate = pc.or_(
            pc.match_substring_regex(pc.if_else(phrase, said, bare), rf"^({_WHOLE})$"),
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
        }


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
