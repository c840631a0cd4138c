"""Clauses of a caption: where they end, which are dropped, and how the rest is joined.

A clause ends at a comma, a semicolon or a sentence's end that a space follows. Commas inside of a
list of adjectives ("a big, red dog") are taken for clauses' ends as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recaption.gates.repair import ABBREVIATION
from recaption.transforms.draws import CLAUSE, uniform

_END = re.compile(r"(?:[,;]|[.!?…]+[\"'”’)\]]*)\s+")
_AND = re.compile(r"(?:and|but|while|with)\s+", re.IGNORECASE)


def split(text: str) -> tuple[list[str], list[str]]:
    """(clauses, the marks behind them): marks without their space, the last "" or the text's."""
    clauses, marks, start = [], [], 0
    for found in _END.finditer(text):
        mark = found[0].rstrip()
        if mark == "." and ABBREVIATION.search(text[: found.start() + 1]):
            continue
        clauses.append(text[start : found.start()])
        marks.append(mark)
        start = found.end()
    rest = text[start:].rstrip()
    body = rest.rstrip(",;.!?…")
    if body:
        clauses.append(body)
        marks.append(rest[len(body) :])
    return clauses, marks


def join(clauses: Sequence[str], marks: Sequence[str], kept: Sequence[int]) -> str:
    """The clauses at the ascending places `kept` as one text.

    Between two of them stands the strongest mark that stood there, and at the end the text's own.
    """
    parts: list[str] = []
    for here, behind in zip(kept, [*kept[1:], len(clauses)], strict=True):
        last = behind == len(clauses)
        between = marks[-1] if last else max(marks[here:behind], key=_strength)
        clause = clauses[here]
        begins = not parts or _strength(parts[-1][-1]) == 2
        cut_off = here > 0 and begins and not _sentence_begins(marks, here)
        if cut_off:
            clause = _AND.sub("", clause, count=1) if _AND.match(clause) else clause
            first = next((c for c in clauses if c), "")
            if first[:1].isupper():
                clause = clause[:1].upper() + clause[1:]
        parts.append(clause + between)
    return " ".join(parts)


def drop(text: str, number: np.uint64, dose: float) -> tuple[str, int, int]:
    """`text` without the clauses whose number lies under the dose.

    The clause with the largest number always stays.

    Returns:
        The text, how many clauses were dropped, and how many there were.
    """
    clauses, marks = split(text)
    draws = uniform(number, len(clauses), CLAUSE)
    kept = _kept(draws, dose)
    dropped = len(clauses) - len(kept)
    return (join(clauses, marks, kept) if dropped else text), dropped, len(clauses)


def cuts(text: str, count: int) -> list[str]:
    """`count` beginnings of the text, spread evenly from its first clause to the whole.

    Where it has fewer clauses, some are equal: a draw among them is of an even length all the same.
    """
    clauses, marks = split(text)
    if len(clauses) < 2:
        return [text] * count
    ends = np.rint(np.linspace(1, len(clauses), count)).astype(int).tolist()
    return [text if end == len(clauses) else join(clauses, marks, list(range(end))) for end in ends]


def _kept(draws: NDArray[np.float64], dose: float) -> list[int]:
    if not len(draws):
        return []
    stays = draws >= dose
    stays[int(np.argmax(draws))] = True
    return np.flatnonzero(stays).tolist()


def _strength(mark: str) -> int:
    return 0 if mark == "," else 1 if mark == ";" else 2


def _sentence_begins(marks: Sequence[str], place: int) -> bool:
    return _strength(marks[place - 1]) == 2
