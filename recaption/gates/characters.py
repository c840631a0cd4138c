"""What in an answer is no text: control characters, escape sequences, marks that nobody sees.

Right-to-left text and emoji are text, and so are the joiners inside of them: ZWJ in emoji sequences
and Indic words, ZWNJ in Persian and Indic words (Unicode Standard, sections 9.2, 12.1 and 23.2).
"""

from __future__ import annotations

import re

from curate.base.characters import REPLACEMENT

# ECMA-48: CSI and OSC sequences and single ones, also where the escape character was spelled out.
_ESCAPE = re.compile(
    r"(?:(?:\x1b|\u241b|\^\[|\\(?:x1b|u001b|033|e))\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    # Of the two-character ones only those that cannot be a lost escape before a word.
    r"|\x1b(?:[ -/]+[0-~]|[78=>]|[B-HJ-Zc](?![A-Za-z]))?",
    re.IGNORECASE,
)
# Arabic to Myanmar, Khmer and Mongolian, further Indic: scripts whose letters join.
_JOINING = r"\u0600-\u109f\u1780-\u18af\u1a20-\u1cff\ua800-\uabff\U00011000-\U00011fff"
_EMOJI = r"\u2190-\u2bff\U0001f000-\U0001faff"
_SELECTORS = r"\ufe00-\ufe0f\U000e0100-\U000e01ef"
_UNSEEN = re.compile(
    "(?P<text>"
    # Flags of England, Scotland and Wales.
    r"\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f"
    rf"|(?<=[{_EMOJI}\u00a9\u00ae\u3030\ufe0f])\u200d(?=[{_EMOJI}])"
    rf"|(?<=[{_JOINING}])(?:\u200d|\u200c(?=[{_JOINING}]))"
    # One selector behind an emoji, a key or an ideograph; more of them hide a message.
    rf"|(?<=[{_EMOJI}#*0-9\u00a9\u00ae\u203c\u2049\u2122\u2139\u2e80-\u9fff\uf900-\ufaff"
    rf"\U00020000-\U0003ffff])[{_SELECTORS}]"
    ")|["
    r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff"
    rf"\U0001d173-\U0001d17a\U000e0000-\U000e00ff{_SELECTORS}"
    "]"
)
# A lost character beside a letter or digit was part of a word, which nobody can mend.
_LOST_ALONE = re.compile(rf"\s*(?<![\w{REPLACEMENT}]){REPLACEMENT}+(?![\w{REPLACEMENT}])")


def readable(text: str) -> str:
    """`text` without what is no text; its white space and line breaks stay."""
    return _UNSEEN.sub(lambda found: found["text"] or "", _ESCAPE.sub("", text))


def without_lost_characters(text: str) -> str:
    """`text` without replacement characters that stand alone; those inside of words stay."""
    return _LOST_ALONE.sub("", text)
