"""What a caption asserts, read by rules; every expectation was counted by hand."""

import pytest

from recaption.judging.object_names import COCO, phrases, plural
from recaption.judging.reader import CaptionReader, Mention

READER = CaptionReader(
    phrases(COCO),
    ["black", "white", "red", "brown", "small", "polka dot", "wooden"],
    ["left of", "on", "next to", "in front of"],
)


def names(text: str) -> list[str]:
    return [mention.name for mention in READER.read(text).mentions]


def said(text: str) -> list[tuple[str, int | None, set[str]]]:
    return [(m.name, m.number, set(m.attributes)) for m in READER.read(text).mentions]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two puppies and a kitten sleep.", ["dog", "cat"]),
        ("Children on skis, men with skateboards", ["person", "skis", "person", "skateboard"]),
        ("a hot dog beside some French fries", ["hot dog"]),
        ("a dog eats a hotdog", ["dog", "hot dog"]),
        ("a teddy bear and a polar bear", ["teddy bear", "bear"]),
        ("two glasses of wine and knives", ["wine glass", "knife"]),
        ("a fire truck near a traffic light", ["truck", "traffic light"]),
        ("dogged persons", ["person"]),
        ("nothing known here: trees, a lake", []),
    ],
)
def test_the_longest_known_phrase_names_a_thing_in_singular_and_plural(text, found) -> None:
    assert names(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a dog house beside a bus stop", []),
        ("a baby elephant", ["elephant"]),
        ("a kitchen with a pizza oven", ["oven"]),
        ("no dogs, and a street without cars or people", []),
        ("a bench with no cat", ["bench"]),
        ("a toy car and a stuffed elephant", []),
        ("a statue of a horse, a picture of a horse", ["horse"]),
        ("an orange cat, and the sky is orange", ["cat"]),
        ("an orange, an apple and oranges", ["orange", "apple", "orange"]),
        ("a remote beach, a ski slope, a jet ski", []),
        ("a man on skis, a train travels by", ["person", "skis", "train"]),
    ],
)
def test_what_is_denied_or_only_qualifies_or_depicts_is_no_mention(text, found) -> None:
    assert names(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two small brown dogs", [("dog", 2, {"small", "brown"})]),
        ("3 sheep and a pair of scissors", [("sheep", 3, set()), ("scissors", 2, set())]),
        ("a dog and several cats", [("dog", None, set()), ("cat", None, set())]),
        ("one dog", [("dog", 1, set())]),
        ("a 2 meter tall dog", [("dog", None, set())]),
        ("two aircraft", [("airplane", 2, set())]),
    ],
)
def test_a_number_before_a_noun_is_its_count(text, found) -> None:
    assert said(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "a red car and a white truck",
            [("car", None, {"red"}), ("truck", None, {"white"})],
        ),
        ("a black and white cat", [("cat", None, {"black", "white"})]),
        ("The dog is very small and brown.", [("dog", None, {"small", "brown"})]),
        ("a cat that is black", [("cat", None, {"black"})]),
        ("a polka dot umbrella", [("umbrella", None, {"polka dot"})]),
        ("a dog on red grass", [("dog", None, set())]),
        ("the dog is on a wooden bench", [("dog", None, set()), ("bench", None, {"wooden"})]),
        ("the dog is brown bread", [("dog", None, set())]),
    ],
)
def test_attributes_are_bound_to_their_own_noun(text, found) -> None:
    assert said(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a cat is sitting to the left of a red bus", {("cat", "left of", "bus")}),
        ("a cup on the wooden table", {("cup", "on", "dining table")}),
        ("a dog next to a cat in front of a car", {("dog", "next to", "cat")}
         | {("cat", "in front of", "car")}),
        ("a dog, and on it a cat", set()),
        ("a dog. On a bench sits a cat.", set()),
        ("a dog is not on a bench", set()),
    ],
)  # fmt: skip
def test_words_between_two_things_that_end_in_a_relation_relate_them(text, found) -> None:
    assert READER.read(text).relations == found


def test_a_relation_is_known_with_the_one_that_says_it_from_the_other_side() -> None:
    assert READER.read("a bus right of a cat").relations == {("bus", "right of", "cat")}


def test_a_name_of_ones_own_is_read_beside_coco_and_never_as_a_synonym() -> None:
    reader = CaptionReader(phrases(["man", "person", "gadget"], {"gadget": ["gizmo"]}))
    assert reader.read("a man, two boys and three gizmos").mentions == (
        Mention("man"),
        Mention("person", 2),
        Mention("gadget", 3),
    )


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("bus", "buses"),
        ("cherry", "cherries"),
        ("monkey", "monkeys"),
        ("hair dryer", "hair dryers"),
        ("snow woman", "snow women"),
        ("sheep", "sheep"),
    ],
)
def test_plurals_are_formed_by_rule(one: str, many: str) -> None:
    assert plural(one) == many


def test_coco_has_80_names() -> None:
    assert len(COCO) == 80
