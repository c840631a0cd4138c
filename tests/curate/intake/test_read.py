"""An input list becomes shards of rows, each row with a key of its own."""

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.intake import source
from curate.intake.inspection import inspect_input
from curate.intake.read import plan_shards
from curate.store.contract import sample_key
from curate.store.dataset import Dataset

ROWS = [
    {"url": "http://a/1.jpg", "text": "a red ball", "score": 0.5},
    {"url": "http://a/2.jpg", "text": None, "score": 0.25},
    {"url": "http://a/1.jpg", "text": "a red ball", "score": 0.125},
    {"url": None, "text": "007", "score": 2.0},
    {"url": "http://a/3.jpg", "text": 'it says "hi", twice', "score": 1.0},
]


def write_parquet(folder: Path) -> Path:
    path = folder / "list.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def write_csv(folder: Path) -> Path:
    lines = ["url,text,score"]
    for row in ROWS:
        text = "" if row["text"] is None else '"' + row["text"].replace('"', '""') + '"'
        lines.append(f"{row['url'] or ''},{text},{row['score']}")
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_csv_gz(folder: Path) -> Path:
    path = folder / "list.csv.gz"
    path.write_bytes(gzip.compress(write_csv(folder).read_bytes()))
    return path


def write_tsv(folder: Path) -> Path:
    lines = ["url\ttext\tscore"]
    lines += [f"{r['url'] or ''}\t{r['text'] or ''}\t{r['score']}" for r in ROWS]
    path = folder / "list.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_jsonl(folder: Path) -> Path:
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def write_parquet_folder(folder: Path) -> Path:
    parts = folder / "parts"
    parts.mkdir()
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table.slice(0, 2), parts / "part-0.parquet")
    pq.write_table(table.slice(2), parts / "part-1.parquet")
    return parts


def write_parquet_glob(folder: Path) -> Path:
    return write_parquet_folder(folder) / "part-*.parquet"


def read_rows(dataset: Dataset) -> list[dict]:
    return [
        row
        for shard in dataset.shards()
        for row in pq.read_table(dataset.input_path(shard)).to_pylist()
    ]


def without_failures(rows: list[dict]) -> list[dict]:
    """The rows without the columns that only broken rows and lists fill, empty here."""
    for row in rows:
        assert row.pop("alt_texts") is None
        assert row.pop("failure") is None
        assert row.pop("failure_detail") is None
        assert row.pop("other_fields", None) is None
    return rows


@pytest.mark.parametrize(
    "write",
    [
        write_parquet,
        write_csv,
        write_csv_gz,
        write_tsv,
        write_jsonl,
        write_parquet_folder,
        write_parquet_glob,
    ],
)
def test_every_kind_of_list_gives_the_same_rows_in_order(tmp_path, write):
    dataset = Dataset(tmp_path / "out")
    intake = plan_shards(write(tmp_path), dataset, rows_per_shard=2)
    assert (intake.rows, intake.shards) == (5, 3)
    assert dataset.shards() == ["00000", "00001", "00002"]
    expected = [
        {"row": number, "url": row["url"], "alt_text": row["text"], "score": row["score"]}
        for number, row in enumerate(ROWS)
    ]
    rows = without_failures(read_rows(dataset))
    keys = [row.pop("key") for row in rows]
    assert rows == expected
    assert keys[0] == sample_key("http://a/1.jpg", "a red ball")
    assert keys[2] == sample_key("http://a/1.jpg", "a red ball", occurrence=1)
    assert len(set(keys)) == 5


def test_keys_do_not_depend_on_how_the_list_is_cut(tmp_path):
    path = write_parquet(tmp_path)
    whole, cut = Dataset(tmp_path / "whole"), Dataset(tmp_path / "cut")
    plan_shards(path, whole)
    plan_shards(path, cut, rows_per_shard=1)
    assert read_rows(whole) == read_rows(cut)


def test_the_same_list_gives_the_same_bytes(tmp_path):
    path = write_csv(tmp_path)
    files = []
    for name in ("a", "b"):
        plan_shards(path, Dataset(tmp_path / name), rows_per_shard=2)
        files.append([f.read_bytes() for f in sorted((tmp_path / name).rglob("*.parquet"))])
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("url", "text"), [("URL", "TEXT"), ("image_url", "caption"), ("Url", "alt")]
)
def test_the_usual_column_names_are_recognised(tmp_path, url, text):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({text: ["a"], url: ["http://a"], "WIDTH": [3]}), path)
    found = inspect_input(path)
    assert (found.url_column, found.text_column) == (url, text)


def test_columns_can_be_named_and_the_others_are_kept(tmp_path):
    path = tmp_path / "list.parquet"
    table = pa.table({"where": ["http://a"], "words": ["x"], "url": ["old"], "key": [7]})
    pq.write_table(table, path)
    dataset = Dataset(tmp_path / "out")
    plan_shards(path, dataset, url_column="where", text_column="words")
    (row,) = without_failures(read_rows(dataset))
    assert row == {
        "key": sample_key("http://a", "x"),
        "row": 0,
        "url": "http://a",
        "alt_text": "x",
        "input_url": "old",
        "input_key": 7,
    }


def test_a_value_that_fits_no_guessed_type_makes_its_column_text(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("url,text,n\n" + "http://a,b,1\n" * 2500 + "http://c,d,many\n")
    dataset = Dataset(tmp_path / "out")
    assert plan_shards(path, dataset, rows_per_shard=2000).rows == 2501
    last = pq.read_table(dataset.input_path("00001")).slice(500).to_pylist()
    assert [row["n"] for row in last] == ["many"]
    keys = pq.read_table(dataset.input_path("00000")).column("key").to_pylist()
    assert len(set(keys)) == 2000


def test_a_list_without_texts_is_taken_in_where_that_is_said(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("url,score\nhttp://a,1\nhttp://b,2\n")
    for given in (path, written_as_parquet(path)):
        dataset = Dataset(tmp_path / given.suffix)
        intake = plan_shards(inspect_input(given, without_texts=True), dataset)
        assert (intake.without_text, intake.text_column) == (2, None)
        assert [row["score"] for row in read_rows(dataset)] == [1, 2]


def written_as_parquet(path: Path) -> Path:
    """The rows of a CSV file as Parquet."""
    from pyarrow import csv

    pq.write_table(csv.read_csv(path), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def test_columns_of_hashes_have_the_names_that_the_download_checks(tmp_path):
    table = pa.table({"url": ["a"], "text": ["b"], "SHA256": ["x"], "md5hash": ["y"], "md5": ["z"]})
    pq.write_table(table, tmp_path / "list.parquet")
    dataset = Dataset(tmp_path / "out")
    plan_shards(tmp_path / "list.parquet", dataset)
    (row,) = read_rows(dataset)
    assert (row["sha256"], row["md5"], row["md5hash"]) == ("x", "z", "y")


def test_shards_of_ours_can_be_taken_in_again(tmp_path):
    table = pa.table({"url": ["a"], "text": ["b"], "key": ["k1"], "input_key": ["k0"], "row": [5]})
    pq.write_table(table, tmp_path / "list.parquet")
    dataset = Dataset(tmp_path / "out")
    plan_shards(tmp_path / "list.parquet", dataset)
    (row,) = read_rows(dataset)
    assert (row["input_key"], row["input_input_key"], row["input_row"]) == ("k0", "k1", 5)


def test_a_second_call_does_nothing(tmp_path):
    path = write_parquet(tmp_path)
    dataset = Dataset(tmp_path / "out")
    first = plan_shards(path, dataset)
    before = dataset.input_path("00000").stat().st_mtime_ns
    path.touch()  # the same bytes under a new time
    assert plan_shards(path, dataset) == first
    assert dataset.input_path("00000").stat().st_mtime_ns == before


def test_an_unfinished_intake_is_done_again(tmp_path):
    path = write_parquet(tmp_path)
    dataset = Dataset(tmp_path / "out")
    plan_shards(path, dataset, rows_per_shard=2)
    (dataset.directory / "input" / "input.json").unlink()
    dataset.input_path("00001").unlink()
    pq.write_table(pa.table({"x": [1]}), dataset.input_path("00009"))
    plan_shards(path, dataset, rows_per_shard=2)
    assert dataset.shards() == ["00000", "00001", "00002"]


def test_a_list_that_changed_since_is_refused(tmp_path):
    path = write_csv(tmp_path)
    dataset = Dataset(tmp_path / "out")
    plan_shards(path, dataset)
    path.write_text(path.read_text().replace("red", "sad"))
    with pytest.raises(DatasetError, match="another version"):
        plan_shards(path, dataset)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("list.parquet", "url,text\na,b\n", "cannot be read as Parquet"),
        ("list.csv", "", "is empty"),
        ("list.csv", "url,text\n", "has no rows"),
        ("list.csv", "link1,words\na,b\n", "no URL column; its columns are link1, words"),
        ("list.csv", "url,score\na,1\n", "no text column; its columns are url, score"),
        ("list.jsonl", "url text\n", "no rows that can be read as JSON lines: Expecting value"),
        ("list.json", "7", "must hold a JSON array"),
        ("list.xlsx", "x", "must end in .parquet, .csv, .tsv, .jsonl, .json or .txt"),
        ("list.parquet.gz", "x", "must end in"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, name, text, says):
    path = written(tmp_path, name, text)
    dataset = Dataset(tmp_path / "out")
    with pytest.raises(ConfigError, match=says) as caught:
        plan_shards(path, dataset)
    assert "\n" not in str(caught.value)
    assert not dataset.directory.exists()


def test_what_does_not_exist_is_refused(tmp_path):
    for missing in ("none.csv", "none-*.parquet"):
        with pytest.raises(ConfigError, match="does not exist"):
            inspect_input(tmp_path / missing)
    with pytest.raises(ConfigError, match="holds no list, no tar and no picture"):
        inspect_input(tmp_path)


def test_a_named_column_that_is_missing_lists_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no column 'link'; its columns are url, text, score"):
        inspect_input(write_parquet(tmp_path), url_column="link")


def test_a_parquet_file_damaged_in_the_middle_costs_the_rows_of_the_damaged_group(tmp_path):
    path = tmp_path / "list.parquet"
    urls = [f"http://a/{number}" for number in range(5000)]
    table = pa.table({"url": urls, "text": urls})
    pq.write_table(table, path, compression="zstd", row_group_size=1000)
    with pq.ParquetFile(path) as parquet:
        chunk = parquet.metadata.row_group(2).column(0)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(bytes(content))
    dataset = Dataset(tmp_path / "out")
    intake = plan_shards(path, dataset)
    assert (intake.rows, intake.broken) == (5000, {"damaged_source": 1000})
    rows = read_rows(dataset)
    assert len({row["key"] for row in rows}) == 5000
    assert [row["url"] for row in rows if not row["failure"]] == urls[:2000] + urls[3000:]


def test_a_real_list_of_web_texts_is_kept_letter_for_letter(real_data, tmp_path):
    path = real_data / "url_lists" / "img2dataset_test_10000.parquet"
    dataset = Dataset(tmp_path / "out")
    assert plan_shards(path, dataset, rows_per_shard=3000).shards == 4
    source = pq.read_table(path)
    rows = read_rows(dataset)
    assert [row["url"] for row in rows] == source.column("URL").to_pylist()
    assert [row["alt_text"] for row in rows] == source.column("TEXT").to_pylist()
    assert len({row["key"] for row in rows}) == 10_000


KILLED = """
import os, signal
from curate.intake import read
from curate.store.dataset import Dataset

write, calls = read.pq.write_table, 0
def dying(*arguments, **options):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments, **options)
read.pq.write_table = dying
read.plan_shards("{source}", Dataset("{out}"), rows_per_shard=2)
"""


@pytest.mark.parametrize("at", [2, 4])  # in the middle of the shards, and of the keys' correction
def test_an_intake_that_was_killed_starts_again_and_equals_an_unbroken_one(tmp_path, at):
    source = write_parquet(tmp_path)
    code = KILLED.format(at=at, source=source, out=tmp_path / "killed")
    died = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False)
    assert died.returncode == -signal.SIGKILL
    killed, whole = Dataset(tmp_path / "killed"), Dataset(tmp_path / "whole")
    assert plan_shards(source, killed, rows_per_shard=2) == plan_shards(
        source, whole, rows_per_shard=2
    )
    assert killed.shards() == whole.shards()
    for shard in whole.shards():
        assert killed.input_path(shard).read_bytes() == whole.input_path(shard).read_bytes()


def test_the_rows_of_a_long_list_are_estimated_and_those_of_a_short_one_counted(
    tmp_path, monkeypatch
):
    path = tmp_path / "list.csv"
    path.write_text("url,text\n" + "".join(f"http://a/{n},text {n % 7}\n" for n in range(2000)))
    found = inspect_input(path)
    assert (found.survey().rows, found.survey().exact) == (2000, True)
    monkeypatch.setattr(source, "_COUNTED_BYTES", 0)
    monkeypatch.setattr(source, "_LOOKED_AT_BYTES", 10_000)
    rows, exact = found.survey().rows, found.survey().exact
    assert not exact
    assert 1800 < rows < 2200
