"""The contract of a dataset directory."""

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import DatasetError
from curate.store.contract import SCHEMAS, sample_key
from curate.store.dataset import Dataset
from curate.store.dataset_card import write_dataset_card
from curate.store.sample_view import sample_view
from curate.store.scans import parquet_scan


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


ODD_FOLDERS = (
    "key=5/width=7/status=failed",
    "[v2]",
    "a*b",
    "back\\slash",
    "q'uote",
    "sp ace?",
    "{a,b} %41 ü",
    "new\nline",
    "[a]\\*",
)


@pytest.fixture(scope="module")
def neighbourhood(tmp_path_factory):
    """A folder with datasets that an odd name matches where it is taken for a pattern."""
    root = tmp_path_factory.mktemp("neighbourhood")
    for name in ("v", "2", "aXb", "aXYb", "back", "sp aceX", "a"):
        near = Dataset(root / name)
        near.write_table("samples", samples("neighbour"), "00000")
        near.write_selection("s", pa.array(["neighbour"]), {})
    return root


@pytest.mark.parametrize("folder", ODD_FOLDERS)
def test_a_dataset_reads_its_own_rows_and_no_others_whatever_the_folders_above_are_called(
    neighbourhood, folder
):
    dataset = Dataset.create(neighbourhood / folder, {"a": 1}, {})
    rows = samples("a", "b").set_column(
        SCHEMAS["samples"].get_field_index("width"), "width", pa.array([3, 4], pa.int32())
    )
    for shard, at in (("00000", 0), ("00001", 1)):
        dataset.write_table("samples", rows.slice(at, 1), shard)
        dataset.write_table("scores", rows.select(["key"]).slice(at, 1), shard)
    dataset.write_selection("s", pa.array(["b"]), {})
    assert dataset.selection_keys("s") == ["b"]
    connection = sample_view(dataset)
    query = "SELECT key, width, status FROM {} ORDER BY key"
    expected = [("a", 3, "stored"), ("b", 4, "stored")]
    assert connection.execute(query.format("sample")).fetchall() == expected
    assert connection.execute(query.format(dataset.scan("samples"))).fetchall() == expected
    chosen = parquet_scan(dataset.selection_path("s"))
    assert connection.execute(f"FROM {chosen}").fetchall() == [("b",)]
    with pytest.raises(duckdb.Error, match="Permission"):
        connection.execute(f"FROM '{neighbourhood}/v/tables/samples/00000.parquet'")


def test_a_file_whose_own_name_is_a_pattern_is_read_alone(tmp_path):
    for name in ("a*.parquet", "ab.parquet", "q'?.parquet"):
        pq.write_table(pa.table({"name": [name]}), tmp_path / name)
    read = duckdb.sql(f"FROM {parquet_scan(tmp_path / 'a*.parquet')}").fetchall()
    assert read == [("a*.parquet",)]
    both = parquet_scan(sorted(tmp_path.glob("*[*?]*")), filename=True)
    assert len(duckdb.sql(f"FROM {both}").fetchall()) == 2


def test_a_captioner_that_has_only_begun_is_no_source_yet(dataset):
    dataset.table_directory("captions", "begun").mkdir(parents=True)
    assert dataset.caption_sources() == []


def test_a_datasets_user_who_points_at_the_directory_gets_the_tables(dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    write_dataset_card(dataset)
    assert not (dataset.directory / "README.md").exists()  # there is nothing to point at yet
    dataset.write_table("samples", samples("a", "b"), "00000")
    dataset.write_table("samples", samples("c"), "00001")
    dataset.write_table("scores", pa.table({"key": ["a"], "blur": [1.5]}), "00000")
    for source in ("alt", "a captioner: 'x'"):
        caption = dict.fromkeys(SCHEMAS["captions"].names) | {"key": source}
        rows = pa.Table.from_pylist([caption], SCHEMAS["captions"])
        dataset.write_table("captions", rows, "00000", source)
    write_dataset_card(dataset)

    def keys(*config: str) -> list[str]:
        cache = str(tmp_path / "cache")
        loaded = datasets.load_dataset(
            str(dataset.directory), *config, split="train", cache_dir=cache
        )
        return loaded["key"][:]

    assert keys() == keys("samples") == ["a", "b", "c"]
    assert sorted(keys("captions")) == ["a captioner: 'x'", "alt"]
    assert keys("scores") == ["a"]


def test_a_readme_of_the_users_own_stays(dataset):
    dataset.write_table("samples", samples("a"), "00000")
    (dataset.directory / "README.md").write_text("mine")
    write_dataset_card(dataset)
    assert (dataset.directory / "README.md").read_text() == "mine"
