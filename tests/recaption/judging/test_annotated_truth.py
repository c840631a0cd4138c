"""Captions against annotated pictures; every count was made by hand."""

import json
from pathlib import Path

import pytest
from judged_dataset import keys_of, make_dataset

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from recaption.judging.annotations import AnnotatedTruth, read_annotations
from recaption.judging.truth import rightness

# Picture 0: two brown dogs left of a black cat. Picture 1: a red car and a white car.
LINES = [
    {
        "file_name": "0.jpg",
        "objects": [
            {"name": "dog", "count": 2, "attributes": ["brown"]},
            {"name": "cat", "attributes": ["black"]},
        ],
        "relations": [["dog", "left of", "cat"]],
    },
    {
        "file_name": "1.jpg",
        "objects": [
            {"name": "car", "attributes": ["red"]},
            {"name": "car", "attributes": ["white"]},
        ],
    },
    {"vocabulary": {"dog": ["hound"], "tree": []}},
]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", 3)


def jsonl(path: Path, rows: list) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def truth(tmp_path: Path, dataset: Dataset) -> AnnotatedTruth:
    return read_annotations(jsonl(tmp_path / "truth.jsonl", LINES), dataset)


def row(truth: AnnotatedTruth, key: str, text: str) -> dict[str, tuple[int, ...]]:
    """kind -> (stated, right, there, found) of one caption."""
    counts = truth.judge([key], [text])
    return {
        kind: tuple(int(c[0]) for c in (t.stated, t.right, t.there, t.found))
        for kind, t in counts.tallies.items()
    }


def test_a_right_caption_states_all_there_is_and_nothing_else(truth, dataset) -> None:
    text = "Two brown hounds are to the left of a black cat."
    assert row(truth, keys_of(dataset)[0], text) == {
        "object": (2, 2, 2, 2),
        "attribute": (2, 2, 2, 2),
        "relation": (1, 1, 1, 1),
        "count": (1, 1, 1, 1),
    }


def test_every_kind_of_mistake_is_counted_where_it_belongs(truth, dataset) -> None:
    # Three for two; white for brown; a car and a tree that are not there, the car red; the cat
    # is not mentioned; the relation is turned round and tells of the car.
    text = "Three white dogs right of a red car. There is a tree."
    assert row(truth, keys_of(dataset)[0], text) == {
        "object": (3, 1, 2, 1),
        "attribute": (2, 0, 2, 0),
        "relation": (1, 0, 1, 0),
        "count": (1, 0, 1, 0),
    }
    counts = truth.judge([keys_of(dataset)[0]], [text])
    assert (counts.mentions[0], counts.hallucinated[0]) == (3, 2)


def test_a_relation_is_right_said_from_either_side(truth, dataset) -> None:
    found = row(truth, keys_of(dataset)[0], "a cat to the right of a dog")
    assert found["relation"] == (1, 1, 1, 1)


def test_each_mention_speaks_of_the_thing_that_it_fits(truth, dataset) -> None:
    found = row(truth, keys_of(dataset)[1], "a white car beside a red car")
    assert found["attribute"] == (2, 2, 2, 2)
    # One car that is both does not exist, and two white ones tell of one.
    assert row(truth, keys_of(dataset)[1], "a red and white car")["attribute"] == (2, 1, 2, 1)
    assert row(truth, keys_of(dataset)[1], "a white car, a white car")["attribute"] == (2, 2, 2, 1)


def test_single_things_add_up_and_unknown_relations_are_not_judged(truth, dataset) -> None:
    found = row(truth, keys_of(dataset)[1], "one car left of one car")
    assert found["count"] == (1, 1, 1, 1)
    assert found["relation"] == (0, 0, 0, 0)
    part = row(truth, keys_of(dataset)[1], "two cars; one car is red")
    assert part["count"] == (1, 1, 1, 1)
    assert row(truth, keys_of(dataset)[1], "three cars; one car is red")["count"] == (1, 0, 1, 0)


def test_precision_recall_and_chair_are_pooled_over_pictures(truth, dataset) -> None:
    keys = keys_of(dataset)[:2]
    found = rightness(truth.judge(keys, ["a dog and a car", "two cars"]), draws=200)
    # Named: dog (right), car (wrong); car (right). There: dog, cat; car.
    assert found.precision["object"].value == pytest.approx(2 / 3)
    assert found.recall["object"].value == pytest.approx(2 / 3)
    assert found.chair_i.value == pytest.approx(1 / 3)
    assert found.chair_s.value == pytest.approx(1 / 2)
    assert found.counts["count"] == (1, 1, 2, 1)
    assert found.precision["object"].low <= 2 / 3 <= found.precision["object"].high


def test_coco_instances_give_objects_and_counts_and_crowds_no_number(tmp_path, dataset) -> None:
    content = {
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "images": [{"id": 7, "file_name": "0.jpg"}, {"id": 8, "file_name": "1.jpg"}],
        "annotations": [
            {"image_id": 7, "category_id": 18, "iscrowd": 0},
            {"image_id": 7, "category_id": 18, "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "iscrowd": 1},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    truth = read_annotations(path, dataset)
    found = row(truth, keys_of(dataset)[0], "five people walk two dogs")
    assert found["object"] == (2, 2, 2, 2)
    assert found["count"] == (1, 1, 1, 1)  # nobody knows how many people there are
    # A picture without annotations holds none of the names: every mention is made up.
    assert row(truth, keys_of(dataset)[1], "a woman")["object"] == (1, 0, 0, 0)
    assert truth.notes == ("2 of 2 annotated pictures are samples here.",)


def test_a_file_name_that_two_urls_share_is_left_out_and_a_key_is_not(tmp_path) -> None:
    import pyarrow as pa

    dataset = make_dataset(tmp_path / "data", 2)
    other = make_dataset(tmp_path / "other", 1, "http://elsewhere.test")
    rows = pa.concat_tables([d.read_table("samples", "00000") for d in (dataset, other)])
    dataset.write_table("samples", rows, "00000")
    key = keys_of(other)[0]
    lines = [{"file_name": "0.jpg", "objects": []}, {"key": key, "objects": [{"name": "cat"}]}]
    truth = read_annotations(jsonl(tmp_path / "t.jsonl", lines), dataset)
    assert list(truth.pictures) == [key]
    assert "1 sample shares a file name with another: left out." in truth.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"objects": []}', "Line 1 of .* needs a key"),
        (
            "t.jsonl",
            '\n{"key": "a", "objects": [{"name": "x", "count": 0}]}',
            "Line 2 .*is 0",
        ),
        ("t.jsonl", '{"key": "nobody", "objects": []}', "none of the samples.*'nobody'"),
        ("t.json", '{"images": []}', "not in COCO's instances format.*categories"),
        ("t.json", "not json", "is not JSON"),
    ],
)
def test_a_truth_that_is_not_one_is_refused_in_one_sentence(
    tmp_path, dataset, name, content, message
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_annotations(tmp_path / name, dataset)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_annotations(tmp_path / "absent.json", dataset)
