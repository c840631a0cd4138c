"""Captions of the synthetic world against their scene, counted by hand."""

from dataclasses import replace

import pytest

from pipelines.world.caption_truth import WorldTruth, compare
from pipelines.world.facts import facts
from pipelines.world.scene import Scene, SceneObject, WorldConfig, sample_scenes
from pipelines.world.writers import habitual_descriptive, write_descriptive
from recaption.transforms.attributes import by_class, usage
from recaption.transforms.derivation import Derivation
from recaption.transforms.rules import Columns, apply, pad

SCENE = Scene(
    (
        SceneObject("ring", "red", "small", 0),
        SceneObject("ring", "blue", "large", 1),
        SceneObject("bar", "blue", "large", 3),
    ),
    "white",
    "plain",
)


def test_a_writers_caption_is_right_in_every_kind_of_statement() -> None:
    scenes = sample_scenes(WorldConfig.small(), 200, seed=1)
    truth = WorldTruth({str(place): scene for place, scene in enumerate(scenes)})
    counts = truth.judge([str(n) for n in range(200)], write_descriptive(scenes, seed=2))
    for kind in ("object", "attribute", "relation", "background", "whole"):
        tally = counts.tallies[kind]
        assert (tally.right == tally.stated).all(), kind
        assert (tally.found == tally.there).all(), kind
    assert counts.hallucinated.sum() == 0
    # One in five templates says how many shapes there are.
    count = counts.tallies["count"]
    assert 0 < count.stated.sum() == count.right.sum() < 200


@pytest.mark.parametrize(
    ("caption", "kind", "row"),
    [
        ("a red ring", "object", (1, 1, 3, 1)),
        ("a red ring", "attribute", (1, 1, 6, 1)),
        # The second moon is made up, as is the third ring.
        ("a moon and a ring and a ring and a ring", "object", (4, 2, 3, 2)),
        # Each ring is read as the true one that it fits, whatever comes first.
        ("a large blue ring and a small red ring", "attribute", (4, 4, 6, 4)),
        ("a large red ring", "attribute", (2, 1, 6, 1)),
        ("a blue bar in the bottom-right", "relation", (1, 1, 3, 1)),
        ("a blue bar below the blue ring", "relation", (0, 0, 3, 0)),
        ("a blue ring in the top-right, a blue bar below it", "relation", (2, 2, 3, 2)),
        ("a blue bar in the top-left", "relation", (1, 0, 3, 0)),
        ("three shapes: a red ring", "count", (1, 1, 1, 1)),
        ("two shapes: a red ring", "count", (1, 0, 1, 0)),
        ("a red ring on a striped white background", "background", (2, 1, 2, 1)),
        ("red clip art", "object", (0, 0, 3, 0)),
        ("red clip art", "attribute", (0, 0, 6, 0)),
    ],
)
def test_each_statement_is_counted_once(caption: str, kind: str, row: tuple[int, ...]) -> None:
    assert compare(facts(caption), SCENE)[kind] == row


def test_a_short_caption_is_held_to_the_main_object_alone() -> None:
    truth = WorldTruth({"a": SCENE, "b": SCENE})
    main = truth.judge(["a", "b"], ["a blue ring", "a red ring and a bar"]).tallies["main"]
    assert main.stated.tolist() == [1, 2]
    assert main.right.tolist() == main.found.tolist() == [1, 0]
    assert main.there.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("rule", "precision", "recall"),
    [
        ({"rule": "json"}, 1, 1),
        ({"rule": "prose"}, 1, 1),
        ({"rule": "tags"}, 0.99, 0.99),  # a tag stands once, so twins are told once
        ({"rule": "random_length"}, 1, 0.8),
        ({"rule": "drop_clauses", "dose": 0.4}, 1, 0.6),
        ({"rule": "wrong_attributes", "dose": 0.3}, 0.7**3, 0.7**3),  # colour, shape, place
        ({"rule": "shuffle"}, 0.01, 0.01),
    ],
    ids=lambda value: value["rule"] if isinstance(value, dict) else "",
)
def test_derived_captions_are_as_right_as_their_rule_leaves_them(
    rule: dict[str, object], precision: float, recall: float
) -> None:
    scenes = sample_scenes(WorldConfig.small(), 300, seed=1)
    keys = [str(number) for number in range(300)]
    columns = Columns(keys, [0] * 300, habitual_descriptive(scenes))
    columns = replace(columns, said=by_class(usage(columns.texts)))
    derived = apply(Derivation(of="descriptive", **rule), columns)  # type: ignore[arg-type]
    truth = WorldTruth(dict(zip(keys, scenes, strict=True)))
    found = truth.judge([keys[row] for row in derived.rows], derived.texts).tallies["whole"]  # type: ignore[arg-type]
    assert found.right.sum() / found.stated.sum() == pytest.approx(precision, abs=0.03)
    assert found.found.sum() / found.there.sum() == pytest.approx(recall, abs=0.03)


def test_a_padded_caption_says_what_it_said_before() -> None:
    truth = WorldTruth({"a": SCENE})
    for text in ("red ring", "red ring and blue bar", "blue bar on white"):
        long = pad(text, " ".join("word" for _ in range(17)))
        once, often = (truth.judge(["a"], [said]).tallies for said in (text, long))
        assert len(long.split()) == 17
        for kind, tally in once.items():
            assert tally.stated == often[kind].stated, kind
            assert tally.right == often[kind].right, kind
