"""GenEval's rules: does a set of detections show what a record asks for?

A record, as in a line of GenEval's evaluation_metadata.jsonl:

    {"tag": "color_attr", "include": [{"class": "cup", "count": 1, "color": "red"},
     {"class": "dog", "count": 1, "position": ["left of", 0]}],
     "exclude": [{"class": "dog", "count": 2}]}

A position is that of the found objects to those of an earlier clause, by its number. The rules and
every constant are those of evaluation/evaluate_images.py of github.com/djghosh13/geneval (Ghosh et
al. 2023, arXiv:2310.11513).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip

Boxes = NDArray[np.float64]
"""(K, 4): left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Detections:
    """K objects of one picture; `masks` (K, H, W) where the detector segments."""

    labels: Sequence[str]
    scores: NDArray[np.float64]
    boxes: Boxes
    masks: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Rules:
    """Thresholds. `most_overlap`: boxes of a class that overlap more count once; 1 keeps all."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    most_overlap: float = 1.0
    most_objects: int = 16
    position_threshold: float = 0.1


NameColours = Callable[[Sequence[int], str], Sequence[str]]
"""(numbers of detections, their class) -> the colour of each."""


def is_right(
    wanted: Mapping[str, Any], found: Detections, colours: NameColours, rules: Rules
) -> bool:
    """Whether all of `include` is there as it should be and nothing of `exclude`."""
    objects = kept(found, str(wanted["tag"]), rules)
    groups: list[list[int] | None] = []
    for clause in wanted.get("include", []):
        group = objects.get(clause["class"], [])[: clause["count"]]
        right = (
            len(group) == clause["count"]
            and _coloured(clause, group, colours)
            and _placed(clause, group, groups, found.boxes, rules)
        )
        groups.append(group if right else None)
    excess = any(
        len(objects.get(clause["class"], [])) >= clause["count"]
        for clause in wanted.get("exclude", [])
    )
    return None not in groups and not excess


def kept(found: Detections, tag: str, rules: Rules) -> dict[str, list[int]]:
    """Class -> its detections that count, the surest first."""
    least = rules.counting_threshold if tag == "counting" else rules.threshold
    objects: dict[str, list[int]] = {}
    for number in np.argsort(-found.scores, kind="stable").tolist():
        if found.scores[number] > least:
            objects.setdefault(found.labels[number], []).append(number)
    return {
        name: _without_overlaps(numbers[: rules.most_objects], found.boxes, rules.most_overlap)
        for name, numbers in objects.items()
    }


def _without_overlaps(numbers: Sequence[int], boxes: Boxes, most: float) -> list[int]:
    chosen: list[int] = []
    for number in numbers:
        if most == 1 or all(overlap(boxes[other], boxes[number]) < most for other in chosen):
            chosen.append(number)
    return chosen


def overlap(a: Boxes, b: Boxes) -> float:
    """Intersection over union of two boxes (4,), pixels at both ends counted."""

    def area(box: Boxes) -> float:
        return float(np.maximum(box[2:] - box[:2] + 1, 0).prod())

    shared = area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    union = area(a) + area(b) - shared
    return shared / union if union else 0.0


def relations(a: Boxes, b: Boxes, threshold: float) -> set[str]:
    """How box `a` stands to box `b`: beyond `threshold` of their summed sides on an axis."""
    offset = (a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2
    sides = np.abs(a[2:] - a[:2]) + np.abs(b[2:] - b[:2])
    beyond = np.maximum(np.abs(offset) - threshold * sides, 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return set()
    dx, dy = beyond / np.linalg.norm(offset)
    names = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, true in names.items() if true}


def _coloured(clause: Mapping[str, Any], group: Sequence[int], colours: NameColours) -> bool:
    if "color" not in clause:
        return True
    return list(colours(group, clause["class"])).count(clause["color"]) >= clause["count"]


def _placed(
    clause: Mapping[str, Any],
    group: Sequence[int],
    groups: Sequence[list[int] | None],
    boxes: Boxes,
    rules: Rules,
) -> bool:
    if "position" not in clause:
        return True
    relation, number = clause["position"]
    targets = groups[number]
    return targets is not None and all(
        relation in relations(boxes[one], boxes[target], rules.position_threshold)
        for one in group
        for target in targets
    )
