"""Characters that stand for none, and those that no file can hold."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
"""What decoders write where bytes were no character."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """`text` with U+FFFD for lone surrogates, which JSON can spell and no UTF-8 file can hold."""
    return _SURROGATE.sub(REPLACEMENT, text)
