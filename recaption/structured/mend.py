"""A captioner's answer as a structured caption: what is only spelt wrong is mended, nothing more.

Text and code fences around the object, trailing commas, single and curly quotes, Python's None,
keys in capitals and null values are spelling. A missing bracket, an unknown key or a number is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from recaption.structured.schema import (
    KEYS,
    MOST_CHARACTERS,
    OBJECT_KEYS,
    Structured,
    Unread,
    checked,
    loaded,
    refusal,
    refuse,
)

_CLOSING = {'"': '"', "'": "'", "“": "”", "”": "”", "„": "“", "‘": "’", "’": "’"}
# A single quote inside of a word ends no string; one before these does.
_ENDS = re.compile(r"\s*[,:\]}]")
_TRAILING = re.compile(r",\s*(?=[\]}])")
_NONE = re.compile(r"\bNone\b")


def mend(text: str) -> Structured | Unread:
    """The caption that an answer holds, or why it holds none."""
    if len(text) > MOST_CHARACTERS:
        return Unread("json_size", f"{len(text):,} characters")
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return Unread("json_syntax", "no object in braces")
    body = text[start : end + 1]
    try:
        try:
            value = loaded(body)
        except ValueError as error:
            if refusal(error).reason != "json_syntax":
                raise
            value = loaded(_respelt(body))
        return checked(_plain(value, KEYS))
    except ValueError as error:
        return refusal(error)


def _respelt(body: str) -> str:
    """The text with JSON's own quotes, without trailing commas and with null for None."""
    parts: list[str] = []
    place = start = 0
    while place < len(body):
        if (opening := body[place]) not in _CLOSING:
            place += 1
            continue
        end = _string_end(body, place, opening)
        inner = body[place + 1 : end]
        parts += [_outside(body[start:place]), inner if opening == '"' else _escaped(inner)]
        place = start = end + 1
    parts.append(_outside(body[start:]))
    # What is outside of strings and what is inside take turns.
    return '"'.join(parts)


def _string_end(body: str, start: int, opening: str) -> int:
    """Where the string that opens at `start` closes; the text's end where it does not."""
    closing = _CLOSING[opening]
    place = start + 1
    while place < len(body):
        if body[place] == "\\":
            place += 1
        elif body[place] == closing and (closing == '"' or _ENDS.match(body, place + 1)):
            return place
        place += 1
    return len(body)


def _escaped(inner: str) -> str:
    return json.dumps(inner.replace("\\'", "'").replace('\\"', '"'), ensure_ascii=False)[1:-1]


def _outside(text: str) -> str:
    return _TRAILING.sub("", _NONE.sub("null", text))


def _plain(value: Any, keys: tuple[str, ...]) -> Any:
    """Known keys in lower case, texts on one line."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [_plain(one, OBJECT_KEYS) for one in value]
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for name, inner in value.items():
        known = name.strip().lower()
        name = known if known in keys else name
        if name in found:
            raise refuse("json_duplicate_key", name[:40])
        found[name] = _plain(inner, OBJECT_KEYS)
    return found
