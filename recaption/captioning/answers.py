"""Answers as the gates read them and as they are stored: prose as it is, JSON by its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recaption.gates.repair import repair
from recaption.prompts.template import STRUCTURED
from recaption.structured.mend import mend
from recaption.structured.prose import prose
from recaption.structured.schema import Unread, serialize

# What these say of an answer that is no JSON tells more than that it is none.
_TELLING = ("empty", "refusal", "reasoning", "truncated")


@dataclass(frozen=True)
class Answers:
    """A batch of answers as columns.

    Attributes:
        said: what the gates read: the answer, or a structured one in prose.
        repaired: the same after repair; similarities are measured of it.
        stored: what becomes the caption where it is accepted.
        finish_reasons: why each ended; JSON that is whole was not cut off.
        unread: why an answer that should be structured is not.
    """

    said: list[str]
    repaired: list[str]
    stored: list[str]
    finish_reasons: list[str | None]
    unread: list[Unread | None]

    def verdict(
        self, row: int, reason: str | None, flags: list[str]
    ) -> tuple[str | None, list[str]]:
        """Reason and flags of a row, of those that the gates gave."""
        unread = self.unread[row]
        if unread is None:
            return reason, flags
        # Of a text that is neither prose nor JSON, most gates say nothing that helps.
        telling = [*(flag for flag in flags if flag in _TELLING), unread.reason]
        return telling[0], telling


def read_answers(
    kind: str, texts: Sequence[str], finish_reasons: Sequence[str | None], min_words: int
) -> Answers:
    """Repair the answers of one kind; those of the kind "structured" are read by its schema."""
    said, finished = list(texts), list(finish_reasons)
    unread: list[Unread | None] = [None] * len(said)
    whole: dict[int, str] = {}
    for row, text in enumerate(texts if kind == STRUCTURED else ()):
        caption = mend(text)
        if isinstance(caption, Unread):
            unread[row] = caption
        else:
            said[row], finished[row] = prose(caption), "stop"
            whole[row] = serialize(caption)
    repaired = repair(said, finished, min_words)
    for row in whole:
        repaired[row] = said[row]
    stored = [whole.get(row, text) for row, text in enumerate(repaired)]
    return Answers(said, repaired, stored, finished, unread)
