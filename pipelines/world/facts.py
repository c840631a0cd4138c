"""The writers' inverse: from the words of a caption to the facts that it states.

The grammar is small: clauses end at a comma, full stop, colon, "and" or "with"; a clause states one
object (size, colour, shape, place or relation), a count, or the background. Background words are
disjoint from object words, so "on a plain white background" may end any clause. Text that no
writer wrote is read as far as it goes: unknown words are skipped, missing attributes are None.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.world.palette import BACKGROUND_COLOURS, BACKGROUND_STYLES, OBJECT_COLOURS, SIZES
from pipelines.world.scene import Scene
from pipelines.world.shapes import SHAPES
from pipelines.world.words import COUNTS, PLACES, RELATIONS, plain_words

_SHAPES = frozenset(SHAPES)
_COLOURS = frozenset(OBJECT_COLOURS)
_SIZES = frozenset(SIZES)
_GROUNDS = frozenset(BACKGROUND_COLOURS)
_STYLES = frozenset(BACKGROUND_STYLES)
_COUNTS = {word: k for k, word in enumerate(COUNTS)}
_ENDS = frozenset({",", ".", ":", "and", "with"})
_CELLS = {grid: {name: k for k, name in enumerate(names)} for grid, names in PLACES.items()}


@dataclass(frozen=True)
class ObjectFact:
    """What a caption says of one object; None is unsaid."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    cell: int | None = None


@dataclass(frozen=True)
class Facts:
    """What a caption says. `objects` in the caption's order."""

    objects: tuple[ObjectFact, ...] = ()
    background: str | None = None
    style: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class _Clause:
    fact: ObjectFact
    relation: str | None
    anchor: ObjectFact | None  # None with a relation is "it": the object before


def facts(caption: str, grid: int = 2) -> Facts:
    """The facts that a caption states, places read on a grid of `grid` cells a side."""
    cells = _CELLS[grid]
    background = style = None
    count = None
    clauses: list[_Clause] = []
    clause: list[str] = []
    for word in [*plain_words(caption), "."]:
        if word in _GROUNDS:
            background = background or word
        elif word in _STYLES:
            style = style or word
        elif word not in _ENDS:
            clause.append(word)
        else:
            read = _read_clause(clause, cells)
            if read and clauses and _places(read, clauses[-1]):
                clauses[-1] = replace(
                    clauses[-1], fact=replace(clauses[-1].fact, cell=read.fact.cell)
                )
            elif read:
                clauses.append(read)
            elif clause and clause[0] in _COUNTS and {"shape", "shapes"} & set(clause):
                count = _COUNTS[clause[0]]
            clause = []
    return Facts(_resolve(clauses, grid), background, style, count)


def scene_facts(scene: Scene) -> Facts:
    """All that there is to say of a scene, the count left out."""
    objects = tuple(ObjectFact(o.shape, o.colour, o.size, o.cell) for o in scene.objects)
    return Facts(objects, scene.background, scene.style)


def contradicts(stated: Facts, scene: Scene) -> bool:
    """Whether a stated fact is false of the scene (an object that is nowhere, a wrong ground)."""
    if stated.background not in (None, scene.background) or stated.style not in (None, scene.style):
        return True
    if stated.count not in (None, len(scene.objects)):
        return True
    return not all(any(_fits(s, o) for o in scene_facts(scene).objects) for s in stated.objects)


def score_captions(
    captions: Sequence[str], scenes: Sequence[Scene]
) -> dict[str, NDArray[np.float64]]:
    """Captions against truth, one value a caption, float64 (N,).

    stated, expected   objects the caption tells of, objects the scene has
    hits               stated objects right in colour, shape and place (each true object once)
    full_hits          the same, and right in size
    precision, recall  hits / stated (NaN where nothing is stated), hits / expected
    background         1 where background colour and style are both right
    exact              1 where all facts are stated and none is false
    Pool counts, not ratios, over many captions: see `pooled`.
    """
    if len(captions) != len(scenes):
        raise ValueError(f"{len(captions)} captions for {len(scenes)} scenes.")
    rows = np.zeros((len(scenes), 6))
    for i, (caption, scene) in enumerate(zip(captions, scenes, strict=True)):
        said, truth = facts(caption, scene.grid), scene_facts(scene)
        placed = {(o.colour, o.shape, o.cell): o.size for o in truth.objects}
        told = {(o.colour, o.shape, o.cell): o.size for o in said.objects}
        right = placed.keys() & told.keys()
        full = sum(placed[key] == told[key] for key in right)
        ground = (said.background, said.style) == (truth.background, truth.style)
        expected = len(truth.objects)
        whole = full == expected == len(said.objects) and said.count in (None, expected)
        rows[i] = (len(said.objects), expected, len(right), full, ground, ground and whole)
    stated, expected_, hits = rows[:, 0], rows[:, 1], rows[:, 2]
    with np.errstate(invalid="ignore"):
        precision, recall = hits / stated, hits / expected_
    return {
        "stated": stated,
        "expected": expected_,
        "hits": hits,
        "full_hits": rows[:, 3],
        "precision": precision,
        "recall": recall,
        "background": rows[:, 4],
        "exact": rows[:, 5],
    }


def pooled(scores: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Object precision and recall over all captions together, and the means of the rest."""
    stated, expected = scores["stated"].sum(), scores["expected"].sum()
    return {
        "precision": float(scores["hits"].sum() / max(stated, 1)),
        "recall": float(scores["hits"].sum() / max(expected, 1)),
        "full_precision": float(scores["full_hits"].sum() / max(stated, 1)),
        "full_recall": float(scores["full_hits"].sum() / max(expected, 1)),
        "background": float(scores["background"].mean()),
        "exact": float(scores["exact"].mean()),
    }


def _read_clause(clause: list[str], cells: dict[str, int]) -> _Clause | None:
    subject, relation, anchor = clause, None, None
    for k, word in enumerate(clause):
        name = f"{word} of" if word in ("left", "right") and "of" in clause[k + 1 : k + 2] else word
        if name in RELATIONS:
            subject, relation = clause[:k], name
            rest = clause[k + 1 :]
            anchor = None if "it" in rest else _read_object(rest, cells)
            break
    fact = _read_object(subject, cells)
    return None if fact == ObjectFact() else _Clause(fact, relation, anchor)


def _places(clause: _Clause, before: _Clause) -> bool:
    """Whether it is a place alone that says where the object before stands, as tags do."""
    alone = replace(clause.fact, cell=None) == ObjectFact() and clause.relation is None
    unplaced = before.fact.cell is None and before.relation is None
    return alone and unplaced and before.fact.shape is not None


def _read_object(clause: list[str], cells: dict[str, int]) -> ObjectFact:
    shape = colour = size = None
    cell = None
    for word in clause:
        if word in _SHAPES:
            shape = shape or word
        elif word in _COLOURS:
            colour = colour or word
        elif word in _SIZES:
            size = size or word
        elif word in cells and cell is None:
            cell = cells[word]
    return ObjectFact(shape, colour, size, cell)


def _resolve(clauses: list[_Clause], grid: int) -> tuple[ObjectFact, ...]:
    """Turn "below the red ring" into a cell, where the anchor is known and the cell exists."""
    resolved = []
    for k, clause in enumerate(clauses):
        fact = clause.fact
        if clause.relation is not None:
            if clause.anchor is None:
                anchors = [clauses[k - 1].fact] if k else []
            else:
                anchors = [
                    other.fact
                    for j, other in enumerate(clauses)
                    if j != k and _fits(clause.anchor, other.fact)
                ]
            down, right = RELATIONS[clause.relation]
            if len(anchors) == 1 and anchors[0].cell is not None:
                row, column = divmod(anchors[0].cell, grid)
                row, column = row + down, column + right
                if 0 <= row < grid and 0 <= column < grid:
                    fact = replace(fact, cell=row * grid + column)
        resolved.append(fact)
    return tuple(resolved)


def _fits(said: ObjectFact, thing: ObjectFact) -> bool:
    return all(
        a is None or a == b
        for a, b in (
            (said.shape, thing.shape),
            (said.colour, thing.colour),
            (said.size, thing.size),
            (said.cell, thing.cell),
        )
    )
