"""The contract of a dataset directory."""

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset import SCHEMAS, Dataset, sample_key
from curate.errors import DatasetError


def samples(*keys: str) -> pa.Table:
    """A samples table with the given keys and nothing else filled in."""
    rows = [{"key": key, "status": "stored", "row": row} for row, key in enumerate(keys)]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["samples"])


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return Dataset.create(tmp_path / "data", {"a": 1}, {})


def test_a_key_is_128_bits_and_depends_on_url_text_and_occurrence():
    key = sample_key("http://a/x.jpg", "a cat")
    assert len(key) == 32
    assert key == sample_key("http://a/x.jpg", "a cat")
    others = {
        sample_key("http://a/x.jpg", None),
        sample_key("http://a/x.jpg", ""),
        sample_key("http://a/x.jpg", "a cat", occurrence=1),
        sample_key("http://a/x.jpga", " cat"),
    }
    assert key not in others
    assert len(others) == 4


def test_a_table_comes_back_as_written_with_its_schema_version(dataset):
    path = dataset.write_table("samples", samples("a", "b"), "00000")
    assert dataset.read_table("samples", "00000").column("key").to_pylist() == ["a", "b"]
    assert pq.read_schema(path).metadata[b"caplab_schema_version"] == b"1"


def test_tables_are_readable_as_they_lie_by_duckdb_pandas_and_datasets(dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset.write_table("samples", samples("a", "b"), "00000")
    dataset.write_table("samples", samples("c"), "00001")
    folder = dataset.table_directory("samples")
    assert len(duckdb.sql(f"SELECT * FROM '{folder}/*.parquet'").fetchall()) == 3
    assert list(pd.read_parquet(folder)["key"]) == ["a", "b", "c"]
    loaded = datasets.load_dataset(
        "parquet", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["key"] == ["a", "b", "c"]


def test_a_missing_or_undeclared_column_is_refused(dataset):
    with pytest.raises(DatasetError, match="needs the columns"):
        dataset.write_table("samples", pa.table({"key": ["a"]}), "00000")
    rows = samples("a").append_column("extra", pa.array([1]))
    with pytest.raises(DatasetError, match="declares no columns extra"):
        dataset.write_table("samples", rows, "00000")


def test_scores_take_columns_of_scorers_behind_the_key(dataset):
    dataset.write_table("scores", pa.table({"blur": [1.5], "key": ["a"]}), "00000")
    assert dataset.read_table("scores", "00000").column_names == ["key", "blur"]


def test_a_half_written_file_is_never_seen_as_a_shard(dataset):
    folder = dataset.table_directory("samples")
    folder.mkdir(parents=True)
    (folder / ".00000.parquet.123.tmp").write_bytes(b"PAR1 half")
    assert not dataset.has_shard("samples", "00000")
    assert not dataset.has_table("samples")


def test_an_unreadable_table_is_named_with_the_way_to_mend_it(dataset):
    path = dataset.table_path("samples", "00000")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not parquet")
    with pytest.raises(DatasetError, match="delete it and run the same command again"):
        dataset.read_table("samples", "00000")


def test_a_directory_of_other_settings_is_left_alone(dataset):
    with pytest.raises(DatasetError, match="a was 1, now 2"):
        Dataset.create(dataset.directory, {"a": 2}, {})
    assert Dataset.create(dataset.directory, {"a": 1}, {}).record()["identity"] == {"a": 1}


def test_a_directory_with_strange_files_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(DatasetError, match="not a dataset of ours"):
        Dataset.create(tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_views_of_empty_tables_exist_with_their_columns(dataset):
    connection = dataset.connect()
    assert connection.execute("SELECT key, image FROM embeddings").fetchall() == []
    assert connection.execute("SELECT count(*) FROM captions").fetchone() == (0,)


def test_embeddings_are_stored_as_float16_and_duckdb_reads_them(dataset):
    rows = pa.table(
        {"key": ["a"], "image": [[0.5, 0.25]], "text": pa.array([None], pa.list_(pa.float32()))}
    )
    path = dataset.write_table("embeddings", rows, "00000")
    assert pq.read_schema(path).field("image").type == pa.list_(pa.float16())
    assert dataset.connect().execute("SELECT image[1] FROM embeddings").fetchone() == (0.5,)


def test_a_selection_that_is_not_there_is_named_with_those_that_are(dataset):
    dataset.write_selection("good", pa.array(["b", "a"]), {"where": "true"})
    assert dataset.selection_keys("good") == ["a", "b"]
    assert dataset.selection_record("good") == {"where": "true"}
    with pytest.raises(DatasetError, match="selections: good"):
        dataset.selection_keys("godo")
