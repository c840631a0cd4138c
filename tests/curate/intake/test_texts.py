"""Texts that come as lists or objects: several captions of one picture, or one sentence."""

import csv
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.intake.inspection import inspect_input
from curate.intake.lists.record import read_intake
from curate.intake.read import plan_shards
from curate.intake.texts import spelled
from curate.store.contract import sample_key
from curate.store.dataset import Dataset
from tests.curate.intake.test_local_pictures import inputs, jpeg, write_tar

URL = "http://a/1.jpg"
LIST = ["a dog", "it's a dog"]


def write_jsonl(folder, values, column="caption"):
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps({"url": URL, column: v}) + "\n" for v in values))
    return path


def write_json(folder, values, column="caption"):
    path = folder / "list.json"
    path.write_text(json.dumps([{"url": URL, column: value} for value in values]))
    return path


def write_csv(folder, values, column="caption", write=json.dumps):
    path = folder / "list.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["url", column])
        rows.writerows([URL, v if isinstance(v, str) else write(v)] for v in values)
    return path


def write_parquet(folder, values, column="caption", kind=None):
    path = folder / "list.parquet"
    table = pa.table({"url": [URL] * len(values), column: pa.array(values, kind)})
    pq.write_table(table, path)
    return path


def write_members(folder, values, column="caption"):
    listed = []
    for number, value in enumerate(values):
        fields = json.dumps({"url": URL, column: value}).encode()
        listed += [(f"{number}.jpg", jpeg(number)), (f"{number}.json", fields)]
    return write_tar(folder / "list.tar", listed)


def write_sidecars(folder, values, column="caption"):
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, value in enumerate(values):
        (pictures / f"{number}.jpg").write_bytes(jpeg(number))
        (pictures / f"{number}.json").write_text(json.dumps({"url": URL, column: value}))
    return pictures


def write_metadata(folder, values, column="caption"):
    pictures = folder / "pictures"
    pictures.mkdir()
    lines = []
    for number, value in enumerate(values):
        (pictures / f"{number}.jpg").write_bytes(jpeg(number))
        lines.append(json.dumps({"file_name": f"{number}.jpg", "url": URL, column: value}))
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    return pictures


WRITERS = [
    *(write_jsonl, write_json, write_csv, write_parquet),
    *(write_members, write_sidecars, write_metadata),
]


def taken_in(path, out, **options):
    dataset = Dataset(out)
    plan_shards(inspect_input(path, **options), dataset)
    return dataset


@pytest.mark.parametrize("write", WRITERS)
def test_a_list_of_texts_is_kept_whole_and_its_first_is_the_alt_text(tmp_path, write):
    path = write(tmp_path, [LIST, ["alone"]])
    first, second = inputs(taken_in(path, tmp_path / "out"))
    assert (first["alt_text"], first["alt_texts"]) == ("a dog", LIST)
    assert first["key"] == sample_key(URL, "a dog")
    assert (second["alt_text"], second["alt_texts"]) == ("alone", None)


@pytest.mark.parametrize("write", WRITERS)
def test_an_object_is_refused_by_a_sentence_that_names_its_keys_and_the_option(tmp_path, write):
    path = write(tmp_path, [{"de": "ein Hund", "en": "a dog"}])
    with pytest.raises(ConfigError, match=r"keys de, en.*--text-column caption\.en\.$"):
        inspect_input(path)
    row, *_ = inputs(taken_in(path, tmp_path / "out", text_column="Caption.EN"))
    assert row["alt_text"] == "a dog"
    assert "ein Hund" in str(row["caption"])  # the other keys are kept


@pytest.mark.parametrize("write", WRITERS)
def test_a_key_inside_a_list_of_objects_is_picked_from_each(tmp_path, write):
    said = [{"raw": text, "sentid": n} for n, text in enumerate(LIST)]
    path = write(tmp_path, [said], "sentences")
    with pytest.raises(ConfigError, match=r"lists of objects.*--text-column sentences\.raw\.$"):
        inspect_input(path)
    row, *_ = inputs(taken_in(path, tmp_path / "out", text_column="sentences.raw"))
    assert row["alt_texts"] == LIST


ODD = [
    (["a", None, "b"], "a", ["a", "b"]),
    ([None], None, None),
    ([], None, None),
    ([""], "", None),
    (["", " ", "x"], "x", None),
    (["a", "a", "b"], "a", ["a", "b"]),
    ([1, 2.5, True], "1", ["1", "2.5", "true"]),
    (["x" * 10**6, "y"], "x" * 10**6, ["x" * 10**6, "y"]),
    (math.nan, None, None),
    (7, "7", None),
]


@pytest.mark.parametrize("write", [write_jsonl, write_members])
def test_nulls_blanks_and_repeats_of_a_list_are_left_out_and_numbers_are_digits(tmp_path, write):
    rows = inputs(taken_in(write(tmp_path, [value for value, *_ in ODD]), tmp_path / "out"))
    told = [(row["alt_text"], row["alt_texts"]) for row in rows]
    assert told == [(first, every) for _, first, every in ODD]


def test_one_object_among_texts_costs_its_own_row(tmp_path):
    path = write_jsonl(tmp_path, ["a", {"en": "b"}, [["c"]], ["d", "e"]])
    rows = inputs(taken_in(path, tmp_path / "out"))
    assert [(row["alt_text"], row["url"], row["failure"]) for row in rows] == [
        ("a", URL, None),
        (None, URL, "unreadable_row"),
        (None, URL, "unreadable_row"),
        ("d", URL, None),
    ]
    assert "--text-column caption.en" in rows[1]["failure_detail"]
    assert "lists of lists" in rows[2]["failure_detail"]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_view(pa.string())),
        pa.list_(pa.string(), 2),
    ],
    ids=str,
)
def test_every_kind_of_list_in_parquet_is_read(tmp_path, kind):
    path = write_parquet(tmp_path, [LIST, None, ["c", None]], kind=kind)
    rows = inputs(taken_in(path, tmp_path / "out"))
    assert [row["alt_text"] for row in rows] == ["a dog", None, "c"]
    assert [row["alt_texts"] for row in rows] == [LIST, None, None]


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (pa.map_(pa.string(), pa.string()), [[("en", "a")]], "holds maps"),
        (pa.list_(pa.list_(pa.string())), [[["a"]]], "lists of lists"),
    ],
)
def test_parquet_columns_that_hold_no_texts_are_refused(tmp_path, kind, values, says):
    with pytest.raises(ConfigError, match=says):
        inspect_input(write_parquet(tmp_path, values, kind=kind))


def test_a_url_inside_an_object_can_be_named(tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"image": [{"href": URL}], "text": ["x"]}), path)
    (row,) = inputs(taken_in(path, tmp_path / "out", url_column="image.href"))
    assert row["url"] == URL


@pytest.mark.parametrize(
    ("cell", "means"),
    [
        ('["a", "b"]', ["a", "b"]),  # json.dumps
        ("['a', \"it's\"]", ["a", "it's"]),  # pandas
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),  # NumPy, which Python would read as one text
        ("[nan, 'b']", ["b"]),
        ("[]", []),
        ("['a\\d']", ["a\\d"]),
        ("[1]", "[1]"),
        ("[sic]", "[sic]"),
        ("{title}", "{title}"),
        ("['a', b]", "['a', b]"),
        ('["a"] and more', '["a"] and more'),
        (None, None),
    ],
)
def test_a_cell_that_spells_a_list_is_one_and_a_text_in_brackets_is_none(cell, means):
    assert spelled(cell) == means


def test_texts_beside_a_picture_come_before_the_list_in_its_json(tmp_path):
    listed = [
        ("0.jpg", jpeg(0)),
        ("0.txt", b"a dog"),
        ("0.caption", b"tags, of, it"),
        ("0.json", json.dumps({"caption": ["a dog", "again"]}).encode()),
        ("1.jpg", jpeg(1)),
        ("1.txt", b"two lines\nof one text"),
        ("1.json", b'{"caption": "said otherwise"}'),
        ("2.jpg", jpeg(2)),
        ("2.json", b'["p", "q"]'),
    ]
    rows = inputs(taken_in(write_tar(tmp_path / "a.tar", listed), tmp_path / "out"))
    assert rows[0]["alt_texts"] == ["a dog", "tags, of, it", "again"]
    assert (rows[1]["alt_text"], rows[1]["alt_texts"]) == ("two lines\nof one text", None)
    assert rows[1]["caption"] == "said otherwise"  # kept, though not as a caption
    assert rows[2]["alt_texts"] == ["p", "q"]


@pytest.mark.parametrize("write", [write_jsonl, write_parquet, write_members])
def test_captions_are_counted_before_and_after_the_input_is_read(tmp_path, write):
    path = write(tmp_path, [["a", "b", "c"], ["d"], None, ["e", "e", None]])
    found = inspect_input(path).survey()
    assert (found.rows, found.captions, found.pictures) == (4, 5, 3)
    intake = read_intake(taken_in(path, tmp_path / "out"))
    assert (intake.captions, intake.captioned, intake.without_text) == (5, 3, 1)


def test_prompt_and_captions_are_text_columns(tmp_path):
    for column in ("prompt", "captions"):
        (tmp_path / column).mkdir()
        assert inspect_input(write_jsonl(tmp_path / column, ["x"], column)).text_column == column
