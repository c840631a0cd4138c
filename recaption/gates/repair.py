"""Repair before rejection: what is no text or encloses the answer goes, then an opening about the
picture; a cut-off text ends with its last whole sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recaption.gates.characters import readable, without_lost_characters
from recaption.gates.wrapping import unwrap

_PICTURE = r"(image|picture|photo|photograph|scene|snapshot)"
_SHOWS = (
    r"(shows?|showcases|depicts?|displays|features|captures|presents|contains|portrays|"
    r"illustrates|is of)"
)
_WE_SEE = r"(there (is|are) |(we|you|one|i) (can )?(also |clearly )?see )"
# Words that may go, because what follows is a caption of its own. "A painting of", "a drawing of"
# and "a black and white photo of" stay: they tell the style.
_STRIPPABLE = (
    rf"(the|this|that) {_PICTURE} (you (sent|provided|shared) )?(also |clearly |prominently )?"
    rf"{_SHOWS} (that )?",
    rf"(the|this|that) {_PICTURE} is (?=(an?|the) )",
    rf"this is (an?|the) {_PICTURE} (of|showing|depicting|featuring) ",
    # "A picture of a ship hangs above a sofa" is about the picture.
    rf"(an?|the|this) {_PICTURE} (of|showing|depicting|featuring|that shows|with) "
    r"(?![^.]*\b(hangs?|hanging|hung|framed|pinned|taped)\b)",
    rf"(in|on|from|looking at) (the|this) {_PICTURE},? {_WE_SEE}",
    rf"(in|on|from|looking at) (the|this) {_PICTURE}, ",
    rf"in (the|this) {_PICTURE} (?=(an?|two|three|four|some|several|many) )",
    rf"(the )?(main )?(subject|focus) of (the|this) {_PICTURE} (is|are|appears to be) ",
    rf"(depicted|shown|pictured|seen|featured) (here |in (the|this) {_PICTURE} )?(is|are) ",
    r"(here,? )?(we|you|one|i) (can )?see ",
    r"(image )?may (contain|be an? (image|picture|photo) of):? ",
    r"(sure|certainly|of course|okay|ok)[,.!]+ ",
    r"here('s| is) (an?|the|your) [^:.]{0,60}(description|caption|sentence|paragraph)"
    r"[^:.]{0,40}: ?",
    r"(short |brief |descriptive |detailed |image )*(caption|description|answer)\s*: ?",
)
_OPENING = re.compile(r"[\"“*\s]*(?:" + "|".join(_STRIPPABLE) + ")", re.IGNORECASE)

_LOOK_AHEAD = re.compile(r"\(\?[=!](?:[^()]|\([^()]*\))*\)")
# The same for Arrow's RE2, which knows no look-ahead, and wider: "This picture is blurry" opens
# with the picture as well, but has no part that could be stripped; nor have other languages, whose
# next word may have to change its ending.
BANNED_OPENING = (
    r"(?i)^[\"“*\s]*("
    + "|".join(_LOOK_AHEAD.sub("", part) for part in _STRIPPABLE)
    + rf"|(the|this|that) {_PICTURE} (is|was|has|appears|seems|looks) "
    r"|(das|dieses) (bild|foto) zeigt |auf (dem|diesem) (bild|foto) "
    r"|(l'image|cette image|la photo|cette photo) (montre|représente|présente) "
    r"|(la|esta) (imagen|foto|fotografía) (muestra|presenta) |en la imagen "
    r"|(l'immagine|la foto) (mostra|raffigura) |(a|esta) (imagem|foto) mostra "
    r"|(на|это) (фото|изображении|картинке|фотографии)|(изображение|фото) показывает"
    r"|(这张|该|此)?(图片|图像|照片|画面)(中|里|上)?(展示|显示|描绘|呈现|是|有)|(图|画)中(有|是|可以)"
    r"|この(画像|写真)(は|に|で))"
)

# A sentence's end: its mark, closing quotes, then a space or the text's end.
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]")
ABBREVIATION = re.compile(r"\b(mr|mrs|ms|dr|st|no|vs|etc|e\.g|i\.e|approx|jr|sr|[A-Z])\.$", re.I)
# "1. 2. 3." are no sentences, "It is from 1967." is one.
_ENUMERATOR = re.compile(r"(?:^|[.:;!?]\s*)\d+[.)]$")
# "A photo of a view of ...", stripped once, can open with the next phrase; more is no caption.
_MAX_STRIPS = 3


def repair(
    texts: Sequence[str], finish_reasons: Sequence[str | None], min_words: int = 1
) -> list[str]:
    """Each caption on one line, without marks around all of it and its banned opening, and whole
    where it was cut off.

    Args:
        finish_reasons: "length" where the token limit cut the text off. Such a text is cut back
            to its last whole sentence if that leaves `min_words`; otherwise it stays as it is.
    """
    return [
        _repair_one(text, reason, min_words)
        for text, reason in zip(texts, finish_reasons, strict=True)
    ]


def clean(text: str) -> str:
    """`text` without control characters and the like, and without quotes around all of it."""
    return unwrap(readable(text))


def strip_opening(text: str) -> str:
    """`text` without a phrase such as "The image shows"; its first letter keeps its case."""
    for _ in range(_MAX_STRIPS):
        found = _OPENING.match(text)
        if found is None or not text[found.end() :].strip():
            break
        rest = text[found.end() :].lstrip()
        if text.lstrip('"“* ')[:1].isupper():
            rest = rest[:1].upper() + rest[1:]
        text = rest
    return text


def cut_to_sentence(text: str) -> str | None:
    """`text` up to its last whole sentence; None where it holds none."""
    for found in reversed(list(_SENTENCE_END.finditer(text))):
        kept = text[: found.end()]
        if not (ABBREVIATION.search(kept) or _ENUMERATOR.search(kept)):
            return kept
    return None


def is_cut(text: str, finish_reason: str | None) -> bool:
    """Whether a text that ran into the token limit now ends with a sentence."""
    return finish_reason == "length" and cut_to_sentence(text) == text


def _repair_one(text: str, finish_reason: str | None, min_words: int) -> str:
    repaired = " ".join(without_lost_characters(clean(text)).split())
    # Behind "Here is a caption:" the answer may stand in quotes, and in them open with the picture.
    while (stripped := unwrap(strip_opening(repaired))) != repaired:
        repaired = stripped
    if finish_reason == "length":
        cut = cut_to_sentence(repaired)
        if cut is not None and len(cut.split()) >= min_words:
            return unwrap(cut)
    return repaired
