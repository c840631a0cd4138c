"""Words for people: numbers with what they count, and texts that cannot lie about what they are."""

from __future__ import annotations

# C0 controls have pictures of their own in Unicode (U+2400...); tab and line ends stay.
_MARKS: dict[int, str] = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}
_MARKS[0x7F] = "\u2421"
_HIDDEN = [
    *range(0x80, 0xA0),  # C1 controls
    0x061C,  # Arabic letter mark
    0x200B,  # zero-width space
    *(0x200E, 0x200F),  # left-to-right and right-to-left marks
    *range(0x2028, 0x202F),  # line separators, embeddings and overrides
    *range(0x2060, 0x2070),  # word joiner, isolates, deprecated format characters
    0xFEFF,  # byte order mark
    *range(0xFFF9, 0xFFFC),  # interlinear annotations
    *range(0xE0000, 0xE0080),  # tags
]
_MARKS |= {code: f"\u27e8U+{code:04X}\u27e9" for code in _HIDDEN}
# Lone surrogates cannot be encoded as UTF-8.
_MARKS |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_IN_A_LINE = {**_MARKS, 10: "\u240a"}


def visible(text: str) -> str:
    """`text` with control, bidirectional and zero-width characters replaced by visible marks.

    Lines stay; see `in_a_line`.
    """
    return text.translate(_MARKS)


def in_a_line(text: str) -> str:
    """The same, and line ends are marks too: a name of a stranger's begins no line of ours."""
    return text.translate(_IN_A_LINE)


def amount(number: int, one: str, more: str = "") -> str:
    """A number with what it counts: "1 row", "1,234 rows", "2 boxes" of ("box", "boxes")."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
