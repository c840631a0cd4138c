"""Values of lists stay as they came: all rows of a list decide what its columns are."""

import gzip
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.intake.imported_scores import ImportScoresStage
from curate.intake.inspection import inspect_input
from curate.intake.read import Intake, plan_shards
from curate.store.dataset import Dataset

INT, FLOAT, TEXT = pa.int64(), pa.float64(), pa.string()


def taken_in(
    path: Path, folder: Path, rows: int = 1000, **options: object
) -> tuple[Intake, pa.Table]:
    """What was taken in, and all rows of the input's shards."""
    dataset = Dataset(folder)
    intake = plan_shards(inspect_input(path, **options), dataset, rows_per_shard=rows)
    shards = [pq.read_table(dataset.input_path(shard)) for shard in dataset.shards()]
    return intake, pa.concat_tables(shards)


def csv_of(folder: Path, name: str, values: list[str], head: str = "value") -> Path:
    path = folder / name
    lines = [f"http://a/{n},t,{value}" for n, value in enumerate(values)]
    path.write_text("\n".join([f"url,text,{head}", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "0"], INT),
        (["1234567890123456789", "1234567890123456790"], INT),
        (["9223372036854775807", "-9223372036854775808"], INT),
        (["9223372036854775808"], TEXT),
        (["0.5", "-1.25", "1e-05"], FLOAT),
        (["1", "0.5"], FLOAT),
        (["1.0", "0.5"], FLOAT),
        (["1.0", "1", "0.5"], TEXT),
        (["9007199254740993", "0.5"], TEXT),
        *(([value, "1"], TEXT) for value in ("007", "+5", "1_000", "0x1F", "1e5", "1.10", "-0")),
        *(([value, "1"], TEXT) for value in (" 1", "1 ", "TRUE", "nan", "inf", "٣", "1.", ".5")),
        (["2024-01-01", "1"], TEXT),
        (["", ""], TEXT),
    ],
)
def test_a_text_is_a_number_only_where_the_number_prints_as_the_same_text(tmp_path, values, kind):
    _, table = taken_in(csv_of(tmp_path, "l.csv", values), tmp_path / "out")
    column = table.column("value")
    assert column.type == kind
    for value, text in zip(column.to_pylist(), values, strict=True):
        printed = "" if value is None else repr(value) if kind == FLOAT else str(value)
        assert text in (printed, printed.removesuffix(".0"))


@pytest.mark.parametrize("late", ["A12", "007", "0.5"])
def test_no_row_is_too_late_to_decide_a_columns_type(tmp_path, late):
    values = [*map(str, range(2500)), late]
    intake, table = taken_in(csv_of(tmp_path, "l.csv", values), tmp_path / "out")
    if late == "0.5":
        assert table.column("value").to_pylist() == [*map(float, range(2500)), 0.5]
    else:
        assert table.column("value").to_pylist() == values
    assert intake.shards == 3


def test_a_score_that_is_empty_for_more_rows_than_are_looked_at_is_a_number(tmp_path):
    path = csv_of(tmp_path, "l.csv", [""] * 1200 + ["0.3"] * 100, "similarity")
    intake, table = taken_in(path, tmp_path / "out")
    assert intake.imported == {"similarity": "imported_similarity"}
    assert table.column("similarity").type == FLOAT
    assert table.column("similarity").null_count == 1200


def test_a_key_of_json_that_first_appears_far_down_is_a_column_and_a_score(tmp_path):
    path = tmp_path / "l.jsonl"
    rows = [{"url": f"http://a/{n}", "text": "t", "n": n} for n in range(2500)]
    rows[-1] |= {"similarity": 0.5, "mine": 1, "n": 2**53 + 1}
    rows[7]["n"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    intake, table = taken_in(path, tmp_path / "out", import_columns=["mine"])
    assert intake.imported == {"similarity": "imported_similarity", "mine": "imported_mine"}
    assert table.column("similarity").to_pylist() == [None] * 2499 + [0.5]
    assert table.column("n").to_pylist()[-2:] == [2498, 2**53 + 1]
    with pytest.raises(ConfigError, match="no column 'yours' to import"):
        inspect_input(path, import_columns=["yours"])


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([1, 2**53 + 1, None], [1, 2**53 + 1, None]),
        ([2**63, 1], [str(2**63), "1"]),
        ([1, 0.5], [1.0, 0.5]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([True, None], [True, None]),
        ([True, 1], ["true", "1"]),
        ([1, "A12"], ["1", "A12"]),
        (["007", "1"], ["007", "1"]),
        ([{"a": 1}, [1, "ä"]], ['{"a": 1}', '[1, "\\u00e4"]']),
    ],
)
def test_values_of_json_keep_their_digits_whatever_stands_beside_them(tmp_path, values, stored):
    path = tmp_path / "l.jsonl"
    rows = [{"url": f"http://a/{n}", "text": "t", "v": v} for n, v in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, table = taken_in(path, tmp_path / "out", rows=1)
    assert table.column("v").to_pylist() == stored


def test_files_of_one_list_may_have_different_types_in_a_column(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    csv_of(parts, "a.csv", ["1", "2"])
    packed = csv_of(parts, "b.csv", ["007", "x"])
    (parts / "b.csv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    _, table = taken_in(parts, tmp_path / "out", rows=1)
    assert table.column("value").to_pylist() == ["1", "2", "007", "x"]


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        ([1, 2], ["a", "b"], ["1", "2", "a", "b"]),
        ([1, 2], [0.5, None], [1.0, 2.0, 0.5, None]),
        ([2**53 + 1, 2], [0.5, None], [str(2**53 + 1), "2", "0.5", None]),
        ([1, None], [None, None], [1, None, None, None]),
    ],
)
def test_parquet_files_that_disagree_about_a_type_lose_no_digit(tmp_path, first, second, stored):
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, values in (("a", first), ("b", second)):
        table = pa.table({"url": [f"{name}1", f"{name}2"], "text": ["t", "t"], "v": values})
        pq.write_table(table, parts / f"{name}.parquet")
    intake, table = taken_in(parts, tmp_path / "out")
    assert not intake.broken
    assert [str(value) for value in table.column("v").to_pylist()] == list(map(str, stored))


SPELLED = [
    "0.35",
    "nan",
    "NaN",
    "inf",
    "-Infinity",
    "1e999",
    "0.10",
    "+.5",
    "NA",
    "",
    " 0.7 ",
    "1e-1",
]
KNOWN = [0.35, None, None, None, None, None, 0.1, 0.5, None, None, 0.7, 0.1]


def scores_of(path: Path, folder: Path, **options: object) -> list[object]:
    """The imported scores of a list."""
    dataset = Dataset.create(folder, {}, {})
    intake = plan_shards(inspect_input(path, **options), dataset, rows_per_shard=5)
    found: list[object] = []
    for shard in dataset.shards():
        keys = pq.read_table(dataset.input_path(shard), columns=["key"])
        dataset.write_table("scores", keys, shard)
        ImportScoresStage().run(dataset, shard)
        (name,) = intake.imported.values()
        found += dataset.read_table("scores", shard).column(name).to_pylist()
    return found


def test_scores_of_texts_are_finite_numbers_or_null(tmp_path):
    path = csv_of(tmp_path, "l.csv", SPELLED, "similarity")
    assert scores_of(path, tmp_path / "known") == KNOWN
    path = csv_of(tmp_path, "l.csv", SPELLED, "mine")
    assert scores_of(path, tmp_path / "named", import_columns=["mine"]) == KNOWN
    urls = [f"u{n}" for n in range(len(SPELLED))]
    table = pa.table({"url": urls, "text": urls, "punsafe": SPELLED})
    pq.write_table(table, tmp_path / "l.parquet")
    assert scores_of(tmp_path / "l.parquet", tmp_path / "texts") == KNOWN


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_scores_of_parquet_are_finite_numbers_or_null(tmp_path, kind):
    values = pa.array([0.5, math.nan, math.inf, -math.inf, None], kind)
    urls = [f"u{n}" for n in range(5)]
    pq.write_table(pa.table({"url": urls, "text": urls, "punsafe": values}), tmp_path / "l.parquet")
    assert scores_of(tmp_path / "l.parquet", tmp_path / "out") == [0.5, None, None, None, None]


def test_scores_of_json_are_finite_numbers_or_null(tmp_path):
    words = ["0.5", "NaN", "Infinity", "-Infinity", "1e999", "null", '"NaN"', '"0.25"', "1"]
    lines = [f'{{"url": "{n}", "text": "t", "punsafe": {v}}}\n' for n, v in enumerate(words)]
    (tmp_path / "l.jsonl").write_text("".join(lines))
    known = [0.5, None, None, None, None, None, None, 0.25, 1.0]
    assert scores_of(tmp_path / "l.jsonl", tmp_path / "out") == known


def test_a_score_that_says_words_stays_text(tmp_path):
    path = csv_of(tmp_path, "l.csv", ["UNLIKELY", "0.10", "NSFW"], "nsfw")
    assert scores_of(path, tmp_path / "out") == ["UNLIKELY", "0.10", "NSFW"]


def test_a_column_of_numbers_in_other_spellings_can_be_imported_later(tmp_path):
    path = csv_of(tmp_path, "l.csv", ["0.50", "nan"], "mine")
    dataset = Dataset.create(tmp_path / "out", {}, {})
    assert plan_shards(inspect_input(path), dataset).imported == {}
    again = plan_shards(inspect_input(path, import_columns=["mine"]), dataset)
    assert (again.imported, again.number_texts) == ({"mine": "imported_mine"}, ["mine"])
    dataset.write_table(
        "scores", pq.read_table(dataset.input_path("00000"), columns=["key"]), "00000"
    )
    assert ImportScoresStage().run(dataset, "00000") == {"imported": 1}


def test_hashes_are_texts_whatever_they_look_like(tmp_path):
    path = csv_of(tmp_path, "l.csv", ["1234567890", "12"], "md5")
    assert taken_in(path, tmp_path / "a")[1].column("md5").to_pylist() == ["1234567890", "12"]
    raw = bytes(range(16))
    table = pa.table({"url": ["a"], "text": ["b"], "md5": [7], "sha256": pa.array([raw * 2])})
    pq.write_table(table, tmp_path / "l.parquet")
    (row,) = taken_in(tmp_path / "l.parquet", tmp_path / "b")[1].to_pylist()
    assert (row["md5"], row["sha256"]) == ("7", (raw * 2).hex())


def test_fields_beyond_the_thousandth_column_are_kept_as_json(tmp_path):
    names = [f"n{n}" for n in range(1005)]
    path = tmp_path / "l.csv"
    path.write_text(f"url,text,{','.join(names)}\nu,t,{','.join('x' for _ in names)}\n")
    (row,) = taken_in(path, tmp_path / "out")[1].to_pylist()
    assert json.loads(row["other_fields"]) == dict.fromkeys(names[1000:], "x")
    assert row["n999"] == "x"
