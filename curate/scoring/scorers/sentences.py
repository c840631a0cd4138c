"""A long caption as sentences, each of which fits into a CLIP model's context."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

# A sentence ends at its mark before white space, at a CJK full stop, or at a line break.
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”]?|\n")
# What ends in a full stop and is no sentence: initials and the usual abbreviations.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|etc|vs|ca|cf|mr|mrs|ms|dr|st|no|nr|fig|inc|jr|sr|prof|approx)"
    r"\.$",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\w")


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the white space around them.

    "A cat, e.g. a tabby. It sleeps." -> ["A cat, e.g. a tabby.", "It sleeps."]. A piece without a
    letter or digit belongs to the one before it. Every word of the text is in one sentence.
    """
    found: list[str] = []
    open_end = False
    cuts = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    for piece in (text[start:stop].strip() for start, stop in pairwise(cuts)):
        if not piece:
            continue
        if found and (open_end or not _LETTER.search(piece)):
            found[-1] = f"{found[-1]} {piece}"
        else:
            found.append(piece)
        open_end = bool(_ABBREVIATION.search(found[-1]))
    return found


def fitting(text: str, excess: Callable[[str], int]) -> list[str]:
    """`text` cut into pieces for which `excess` (tokens too many) is 0: nothing is left out.

    Cuts at the comma nearest to the middle, or the space, or in the middle of a word.
    """
    if excess(text) <= 0 or len(text) < 2:
        return [text]
    middle = len(text) / 2
    for pattern in (r"[,;:]\s+", r"\s+"):
        # A comma near an end would leave nearly all of it in one piece.
        cuts = [m.end() for m in re.finditer(pattern, text) if 0.2 < m.end() / len(text) < 0.8]
        if cuts:
            cut = min(cuts, key=lambda place: abs(place - middle))
            break
    else:
        cut = len(text) // 2
    pieces = (text[:cut].strip(), text[cut:].strip())
    return [part for piece in pieces if piece for part in fitting(piece, excess)]
