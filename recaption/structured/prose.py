"""A structured caption in prose, by rule, and plain captions read back into the structured form."""

from __future__ import annotations

import re
from typing import cast

from recaption.structured.grammar import DETERMINERS, FOREIGN, PREPOSITIONS
from recaption.structured.schema import Structured, StructuredObject, Unread, parse

_WORD = r"[^\W_]+(?:[-'’][^\W_]+)*"
_OBJECT = re.compile(rf"an? (?P<what>{_WORD}(?: {_WORD}){{0,6}}?)(?: in the (?P<place>.+))?")
_PLACE = re.compile(rf"{_WORD}(?: {_WORD}){{0,3}}")
_BACKGROUND = re.compile(rf"on an? (?P<look>{_WORD}(?: {_WORD}){{0,4}}) background")
_CLAUSE = re.compile(r"[,;.]\s+")


def prose(caption: Structured) -> str:
    """ "a small red ring in the top-left, a large cyan bar in the bottom-right, on a striped white
    background": objects in their order, then background, style and text; a summary first."""
    parts = [_object_prose(one) for one in caption["objects"]]
    if background := caption.get("background"):
        parts.append(f"on {article(background.removesuffix(' background'))} background")
    if style := caption.get("style"):
        parts.append(f"in the style of {article(style)}")
    if texts := caption.get("text"):
        parts.append("with the text " + " and ".join(f'"{text}"' for text in texts))
    told = ", ".join(parts)
    if summary := caption.get("summary"):
        return f"{summary.rstrip('.')}. {told}"
    return told


def article(words: str) -> str:
    """`words` with "a" or "an" before them, unless a word that stands for it is there."""
    if words.split(" ", 1)[0].lower() in DETERMINERS:
        return words
    return f"an {words}" if words[0].lower() in "aeiou" else f"a {words}"


def from_caption(text: str) -> Structured | Unread:
    """A caption as a structured one: JSON of the schema, or clauses of a small grammar.

    Clauses stand between commas, semicolons and full stops: "a|an ADJECTIVE... NOUN [in the
    PLACE]", and "on a ... background" once. Anything else is not guessed at: it is Unread with the
    reason "unread_clause".
    """
    text = text.strip()
    if text.startswith("{"):
        return parse(text)
    objects: list[StructuredObject] = []
    background: str | None = None
    for clause in _CLAUSE.split(text.removesuffix(".")):
        plain = clause[:1].lower() + clause[1:]
        if ground := _BACKGROUND.fullmatch(plain):
            if background is not None:
                return Unread("unread_clause", f"a second background: {clause[:80]}")
            background = ground["look"]
        elif (one := _read_object(plain)) is not None:
            objects.append(one)
        else:
            return Unread("unread_clause", clause[:80])
    if not objects:
        return Unread("unread_clause", "no object")
    caption: Structured = {"objects": objects}
    if background is not None:
        caption["background"] = background
    return caption


def _read_object(clause: str) -> StructuredObject | None:
    found = _OBJECT.fullmatch(clause)
    if found is None:
        return None
    *attributes, name = found["what"].split()
    if FOREIGN & {name, *attributes}:
        return None
    one = {"name": name}
    if attributes:
        one["attributes"] = attributes  # type: ignore[assignment]
    if place := found["place"]:
        if not _PLACE.fullmatch(place) or FOREIGN & set(place.split()):
            return None
        one["place"] = place
    return cast(StructuredObject, one)


def _object_prose(one: StructuredObject) -> str:
    named = article(" ".join([*one.get("attributes", ()), one["name"]]))
    place = one.get("place")
    if not place:
        return named
    if place.split(" ", 1)[0].lower() in PREPOSITIONS and " " in place:
        return f"{named} {place}"
    return f"{named} in the {place.removeprefix('the ')}"
