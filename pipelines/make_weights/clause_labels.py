"""Which words of a text belong together: for every token, the facts of the clause it stands in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.world.facts import ObjectFact, facts
from pipelines.world.palette import BACKGROUND_COLOURS, BACKGROUND_STYLES, OBJECT_COLOURS, SIZES
from pipelines.world.shapes import SHAPES
from pipelines.world.words import PLACES, plain_words

LABELS: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(OBJECT_COLOURS),
    "size": tuple(SIZES),
    "place": PLACES[3],
    "background": tuple(BACKGROUND_COLOURS),
    "style": BACKGROUND_STYLES,
}
"""What may be said of an object (the first four) or of the ground, and its names."""

UNSAID = -100

_PLACE_COLON = re.compile(r"((?:top|center|bottom)-(?:left|center|right)|\bcenter)( *):")
_CLAUSE = re.compile(r"(?:(?!\b(?:and|with)\b)[^,.;:+&])+")
_BRACED = re.compile(r"[^{}]+")
_GROUNDS = frozenset((*BACKGROUND_COLOURS, *BACKGROUND_STYLES))


def token_labels(text: str, spans: Sequence[tuple[int, int]], grid: int) -> NDArray[np.int64]:
    """Labels of the tokens of a text, int64 (T, 6): a place in LABELS' names, or UNSAID.

    A word of a clause that tells of an object gets that object's facts, a word for the ground those
    of the ground. `spans` are the tokens' places in the text.
    """
    labels = np.full((len(spans), len(LABELS)), UNSAID)
    ground = facts(text.replace('"', " "), grid)
    told = {"background": ground.background, "style": ground.style}
    clauses = list(_clauses(text, grid))
    for row, (start, end) in zip(labels, spans, strict=True):
        word = plain_words(text[start:end])
        if word and word[0] in _GROUNDS:
            _fill(row, told)
            continue
        for first, last, fact in clauses:
            if first <= start < end <= last:
                place = None if fact.cell is None else PLACES[grid][fact.cell]
                _fill(
                    row,
                    {
                        "shape": fact.shape,
                        "colour": fact.colour,
                        "size": fact.size,
                        "place": place,
                    },
                )
    return labels


def _fill(row: NDArray[np.int64], said: dict[str, str | None]) -> None:
    for column, (name, names) in enumerate(LABELS.items()):
        value = said.get(name)
        if value is not None:
            row[column] = names.index(value)


def _clauses(text: str, grid: int) -> Iterator[tuple[int, int, ObjectFact]]:
    """(start, end, what is said) of the clauses that tell of an object."""
    lowered = _PLACE_COLON.sub(r"\1\2 ", text.lower())
    structured = lowered.startswith("{")
    found: list[tuple[int, int, ObjectFact]] = []
    for match in (_BRACED if structured else _CLAUSE).finditer(lowered):
        clause = re.sub(r"[^a-z0-9-]+", " ", match[0])
        for said in facts(clause, grid).objects[:1]:
            found.append((match.start(), match.end(), said))
    whole = () if structured else facts(text, grid).objects
    if len(whole) == len(found):
        # Only the whole text places "below the red ring".
        found = [(start, end, said) for (start, end, _), said in zip(found, whole, strict=True)]
    for k, (start, end, said) in enumerate(found):
        behind = found[k + 1][2] if k + 1 < len(found) else ObjectFact()
        if behind == ObjectFact(cell=behind.cell) and behind.cell is not None:
            said = ObjectFact(said.shape, said.colour, said.size, behind.cell)
        elif said == ObjectFact(cell=said.cell) and k:
            # A tag of its own that places the object before it.
            before = found[k - 1][2]
            said = ObjectFact(before.shape, before.colour, before.size, said.cell)
        yield start, end, said
