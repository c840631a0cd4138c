"""GenEval's rules on detections made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.judges.detection.rules import Detections, Rules, is_right, kept, overlap, relations

LEFT, MIDDLE, RIGHT = (0, 40, 20, 60), (40, 40, 60, 60), (80, 40, 100, 60)
TOP, LOW = (40, 0, 60, 20), (40, 80, 60, 100)


def seen(*objects: tuple[str, float, tuple[int, int, int, int]]) -> Detections:
    labels, scores, boxes = zip(*objects, strict=True) if objects else ((), (), ())
    return Detections(labels, np.array(scores, float), np.array(boxes, float).reshape(-1, 4))


def judged(wanted: dict, found: Detections, colours: Sequence[str] = (), **rules: float) -> bool:
    """Colours are those of the detections, by their number."""
    return is_right(wanted, found, lambda numbers, _: [colours[n] for n in numbers], Rules(**rules))


ONE = {"tag": "single_object", "include": [{"class": "dog", "count": 1}]}
TWO = {
    "tag": "two_object",
    "include": [{"class": "dog", "count": 1}, {"class": "cup", "count": 1}],
}
COUNT = {
    "tag": "counting",
    "include": [{"class": "dog", "count": 2}],
    "exclude": [{"class": "dog", "count": 3}],
}
COLOUR = {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}]}
PLACE = {
    "tag": "position",
    "include": [
        {"class": "cup", "count": 1},
        {"class": "dog", "count": 1, "position": ["left of", 0]},
    ],
}
BOUND = {
    "tag": "color_attr",
    "include": [
        {"class": "cup", "count": 1, "color": "red"},
        {"class": "dog", "count": 1, "color": "blue"},
    ],
}


def test_a_single_object_needs_more_than_the_threshold():
    assert judged(ONE, seen(("dog", 0.31, LEFT)))
    assert not judged(ONE, seen(("dog", 0.3, LEFT)))
    assert not judged(ONE, seen(("cup", 0.9, LEFT)))
    assert not judged(ONE, seen())


def test_two_objects_must_both_be_there():
    assert judged(TWO, seen(("dog", 0.5, LEFT), ("cup", 0.5, RIGHT)))
    assert not judged(TWO, seen(("dog", 0.5, LEFT), ("dog", 0.5, RIGHT)))


def test_counts_are_exact_and_only_sure_objects_count():
    two = [("dog", 0.95, LEFT), ("dog", 0.91, RIGHT)]
    assert judged(COUNT, seen(*two))
    assert judged(COUNT, seen(*two, ("dog", 0.9, MIDDLE))), "not above .9"
    assert not judged(COUNT, seen(*two, ("dog", 0.92, MIDDLE)))
    assert not judged(COUNT, seen(two[0], ("dog", 0.8, RIGHT)))


def test_the_colour_of_the_surest_object_counts():
    found = seen(("cup", 0.5, LEFT), ("cup", 0.9, RIGHT))
    assert judged(COLOUR, found, ["blue", "red"])
    assert not judged(COLOUR, found, ["red", "blue"])


def test_a_place_is_that_of_the_surest_objects():
    assert judged(PLACE, seen(("cup", 0.9, RIGHT), ("dog", 0.9, LEFT)))
    assert not judged(PLACE, seen(("cup", 0.9, LEFT), ("dog", 0.9, RIGHT)))
    assert not judged(PLACE, seen(("cup", 0.9, TOP), ("dog", 0.9, LOW)))
    two_dogs = [("dog", 0.9, RIGHT), ("dog", 0.8, LEFT)]
    assert not judged(PLACE, seen(("cup", 0.9, MIDDLE), *two_dogs))
    assert not judged(PLACE, seen(("dog", 0.9, LEFT))), "nothing to be left of"


def test_each_object_needs_its_own_colour():
    found = seen(("cup", 0.9, LEFT), ("dog", 0.9, RIGHT))
    assert judged(BOUND, found, ["red", "blue"])
    assert not judged(BOUND, found, ["blue", "red"])
    assert not judged(BOUND, found, ["red", "red"])


@pytest.mark.parametrize(
    ("a", "names"),
    [(LEFT, {"left of"}), (RIGHT, {"right of"}), (TOP, {"above"}), (LOW, {"below"})],
)
def test_relations_are_named_beyond_a_tenth_of_the_sides(a, names):
    assert relations(np.array(a, float), np.array(MIDDLE, float), 0.1) == names
    near = np.array(MIDDLE, float) + 4  # .1 of 20 + 20
    assert relations(near, np.array(MIDDLE, float), 0.1) == set()


def test_a_diagonal_is_both_relations():
    corner = np.array((0, 0, 20, 20), float)
    assert relations(corner, np.array(MIDDLE, float), 0.1) == {"left of", "above"}


def test_overlapping_boxes_of_a_class_count_once_where_asked():
    near = (42, 40, 62, 60)
    # Pixels at both ends count: 19 x 21 shared, 21 x 21 each.
    shared = 19 * 21 / (2 * 21 * 21 - 19 * 21)
    assert overlap(np.array(MIDDLE, float), np.array(near, float)) == pytest.approx(shared)
    found = seen(("dog", 0.95, near), ("dog", 0.96, MIDDLE), ("dog", 0.97, LEFT))
    assert kept(found, "counting", Rules())["dog"] == [2, 1, 0]
    assert kept(found, "counting", Rules(most_overlap=0.5))["dog"] == [2, 1]
    assert judged(COUNT, found, most_overlap=0.5)
    assert not judged(COUNT, found)


def test_a_class_has_sixteen_objects_at_most():
    assert len(kept(seen(*[("dog", 0.5, LEFT)] * 20), "colors", Rules())["dog"]) == 16
