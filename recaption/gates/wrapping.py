"""Marks around a whole answer, such as quotes and italics: they are no part of the caption."""

from __future__ import annotations

import re

_DOUBLE = '"“”„‟＂〝〞〟'
_SINGLE = "'‘’‚‛＇"
_EMPHASIS = "*_~`"
# Opened and closed by different marks; the other marks close or open by where they stand.
_PAIRS = {
    "«": "»", "»": "«", "‹": "›", "›": "‹", "「": "」", "『": "』", "《": "》", "〈": "〉",
    "【": "】", "〖": "〗", "｢": "｣",
}  # fmt: skip
_MARKS = frozenset(_DOUBLE + _SINGLE + _EMPHASIS + "".join(_PAIRS))
_OPENERS = _MARKS | frozenset("([{—–-:/¿¡")
_CLOSERS = _MARKS | frozenset(".,;:!?…)]}。！？，、—–-/")
_ENDS = ".!?…。！？"
_FENCE = 3


def unwrap(text: str) -> str:
    """`text` without the quotes and italics that enclose all of it, however deep they are nested.

    `"Open" and "closed"` begins and ends with two phrases in quotes and keeps them. A quote that
    was opened and never closed, or closed and never opened, goes as well.
    """
    text = text.strip()
    if text.startswith('\\"'):
        text = text.replace('\\"', '"')
    while (inner := _inner(text)) is not None:
        text = inner
    if sum(character in _DOUBLE for character in text) == 1:
        if text[0] in _DOUBLE:
            return text[1:].lstrip()
        if text[-1] in _DOUBLE and not text[-2].isdigit():  # 12" are inches
            return text[:-1].rstrip()
    return text


def _inner(text: str) -> str | None:
    """What one layer of marks encloses; None where there is none."""
    body, end = text, ""
    if len(text) > 2 and text[-1] in _ENDS and text[-2] in _MARKS:
        body, end = text[:-1], text[-1]  # "A red kite".
    if len(body) < 2:
        return None
    first, last = body[0], body[-1]
    if first in _EMPHASIS:
        width = len(body) - len(body.lstrip(first))
        if (width >= _FENCE and first in "`~") or len(body) - len(body.rstrip(first)) != width:
            return None
        inner = body[width:-width]
        if inner != inner.strip() or not _encloses(body, width, re.escape(first) + "+"):
            return None
    elif last == _PAIRS.get(first):
        inner = body[1:-1]
        if not _stays_open(inner, first, last):
            return None
    else:
        kind = next((kind for kind in (_DOUBLE, _SINGLE) if first in kind), "")
        if last not in kind or not kind or not _encloses(body, 1, f"[{kind}]"):
            return None
        inner = body[1:-1]
    inner = inner.strip()
    return inner if inner[-1:] in _ENDS else inner + end


def _stays_open(inner: str, opener: str, closer: str) -> bool:
    depth = 0
    for character in inner:
        depth += (character == opener) - (character == closer)
        if depth < 0:
            return False
    return depth == 0


def _encloses(body: str, width: int, mark: str) -> bool:
    """Whether the marks inside are pairs of their own, told by the characters beside them."""
    depth = 0
    for found in re.finditer(mark, body):
        start, end = found.span()
        if start < width or end > len(body) - width:
            continue
        before, behind = body[start - 1], body[end]
        opens = (before.isspace() or before in _OPENERS) and not behind.isspace()
        closes = (behind.isspace() or behind in _CLOSERS) and not before.isspace()
        if opens and not closes:
            # '70s is no phrase that opens.
            depth += not (found[0] in _SINGLE and behind.isdigit())
        elif closes and not opens:
            if depth == 0 and _is_no_quote(found[0], before):
                continue
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


def _is_no_quote(mark: str, before: str) -> bool:
    """12" and the dogs' bowl, where no phrase is open."""
    return (mark in _DOUBLE and before.isdigit()) or (mark in _SINGLE and before in "sS")
