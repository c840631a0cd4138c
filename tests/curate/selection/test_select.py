import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.check import check
from curate.store.contract import DUPLICATE_PAIRS, DUPLICATES, SAMPLES
from curate.store.dataset import Dataset
from curate.store.sample_view import sample_view
from tests.curate.scored import make_scored
from tests.curate.tiny import make_dataset, write_input


def generated(directory: Path, rows: int = 200) -> Dataset:
    """A dataset of tables alone: scores of all kinds, a tenth unscored, some failed, some twice."""
    dataset = Dataset.create(directory, {"made": "by a test"}, {})
    random = np.random.default_rng(0)
    for shard in ("00000", "00001"):
        keys = [f"{value:032x}" for value in random.integers(0, 2**62, rows)]
        stored = np.arange(rows) % 10 != 0
        samples = {name: pa.nulls(rows, SAMPLES.field(name).type) for name in SAMPLES.names} | {
            "key": keys,
            "status": np.where(stored, "stored", "failed").tolist(),
            "alt_text": [f"text {i}" for i in range(rows)],
            "width": random.integers(100, 900, rows).astype(np.int32),
        }
        dataset.write_table("samples", pa.table(samples), shard)
        write_input(dataset, shard, pa.table({"key": keys, "url": keys, "alt_text": keys}))
        similarity = random.normal(0.28, 0.05, rows).astype(np.float32)
        scores = pa.table(
            {
                "key": keys,
                "clip_similarity": pa.array(similarity, mask=np.arange(rows) % 7 == 0),
                "aesthetic": random.normal(5, 1, rows).astype(np.float32),
                "width": np.zeros(rows, np.int32),
            }
        )
        dataset.write_table("scores", scores.filter(pa.array(stored)), shard)
    copies = keys[1:20:2]
    write_duplicates(dataset, [("near", copies[0], copy) for copy in copies[1:]], copies[:1])
    return dataset


def write_duplicates(
    dataset: Dataset, pairs: list[tuple[str, str, str]], kept: list[str] | None = None
) -> None:
    """Pairs (method, key, key), and groups as duplicate search would have made them."""
    rows = [
        {"method": method, "key_a": min(a, b), "key_b": max(a, b), "distance": 0.0}
        for method, a, b in pairs
    ]
    dataset.write_table("duplicate_pairs", pa.Table.from_pylist(rows, DUPLICATE_PAIRS))
    groups = [
        {"method": method, "key": key, "group": a, "kept": key == a, "distance": 0.0}
        for method, a, b in pairs
        for key in (a, b)
        if key == b or a in (kept or [])
    ]
    unique = list({(row["method"], row["key"]): row for row in groups}.values())
    dataset.write_table("duplicates", pa.Table.from_pylist(unique, DUPLICATES))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return generated(tmp_path / "dataset")


WHERE = "clip_similarity >= 0.28 and aesthetic >= 5 and width >= 200"


def test_the_keys_are_those_that_plain_python_selects(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="good", where=WHERE, keep_duplicates=True))
    expected = []
    for shard in dataset.shards():
        samples = {row["key"]: row for row in dataset.read_table("samples", shard).to_pylist()}
        for row in dataset.read_table("scores", shard).to_pylist():
            similarity = row["clip_similarity"]
            if similarity is not None and similarity >= np.float32(0.28) and row["aesthetic"] >= 5:
                expected += [row["key"]] if samples[row["key"]]["width"] >= 200 else []
    assert dataset.selection_keys("good") == sorted(expected)


def test_the_funnel_adds_up(dataset: Dataset) -> None:
    summary = select(dataset, SelectSettings(name="good", where=WHERE))
    assert summary.rows == 400
    assert summary.stored == 360
    left = summary.stored
    for count in summary.funnel:
        left -= count.removed_in_order + count.unscored_in_order
        assert count.left == left
        assert count.removed_in_order <= count.removed_alone
        assert count.unscored_in_order <= count.unscored_alone
    assert left == summary.selected == len(dataset.selection_keys("good"))
    assert [count.rule for count in summary.funnel][-1] == "best of its copies (near)"
    assert summary.funnel[0].unscored_alone > 0
    assert summary.funnel[1].unscored_alone == 0


def test_the_order_of_rules_changes_the_funnel_and_not_the_selection(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="a", where="aesthetic >= 5 and clip_similarity >= 0.28"))
    select(dataset, SelectSettings(name="b", where="clip_similarity >= 0.28 and aesthetic >= 5"))
    assert dataset.selection_keys("a") == dataset.selection_keys("b")


def test_duplicates_are_dropped_unless_kept(dataset: Dataset) -> None:
    without = select(dataset, SelectSettings(name="one", where="true"))
    everything = select(dataset, SelectSettings(name="all", where="true", keep_duplicates=True))
    dropped = set(dataset.selection_keys("all")) - set(dataset.selection_keys("one"))
    copies = {r["key"] for r in dataset.read_table("duplicates").to_pylist()}
    assert len(dropped) == everything.selected - without.selected > 0
    assert dropped < copies
    # Search's own verdict, which knows nothing of the other rules, is a column as well.
    by_hand = SelectSettings(name="c", where="not duplicate_near", keep_duplicates=True)
    assert everything.selected - select(dataset, by_hand).selected == len(copies) - 1


def test_the_top_fraction_is_counted_over_all_stored_samples(dataset: Dataset) -> None:
    settings = SelectSettings(name="top", where="top_fraction(aesthetic, 0.25)",
                              keep_duplicates=True)  # fmt: skip
    assert select(dataset, settings).selected == 90
    view = sample_view(dataset)
    values = sorted(row[0] for row in view.execute("SELECT aesthetic FROM sample").fetchall())
    chosen = view.execute(
        "SELECT min(aesthetic) FROM sample WHERE list_contains(?, key)",
        [dataset.selection_keys("top")],
    ).fetchall()[0][0]
    assert chosen == values[-90]


def test_width_is_that_of_the_samples_table(dataset: Dataset) -> None:
    settings = SelectSettings(name="wide", where="width > 0", keep_duplicates=True)
    assert select(dataset, settings).selected == 360


def test_bytes_per_pixel_and_jpeg_quality_are_columns_of_old_and_new_datasets(tmp_path: Path):
    told = {"original_bytes": 300, "original_width": 20, "original_height": 10, "jpeg_quality": 40}
    rows = [{"key": "a", "aesthetic": 5.0, **told}, {"key": "b", "aesthetic": 5.0}]
    dataset = make_scored(tmp_path / "data", rows)
    question = "SELECT key, bytes_per_pixel, jpeg_quality FROM sample ORDER BY key"
    found = sample_view(dataset).execute(question).fetchall()
    assert found == [("a", 1.5, 40), ("b", None, None)]
    path = dataset.table_path("samples", "00000")
    pq.write_table(pq.read_table(path).drop_columns(["jpeg_quality"]), path)  # of an older version
    assert sample_view(dataset).execute(question).fetchall() == [("a", 1.5, None), found[1]]
    select(dataset, SelectSettings(name="some", where="bytes_per_pixel > 1"))
    assert dataset.selection_keys("some") == ["a"]
    assert not [hole for hole in check(dataset).holes if hole.table == "samples"]


def test_selecting_again_is_a_no_op_that_tells_the_same(dataset: Dataset) -> None:
    settings = SelectSettings(name="good", where=WHERE)
    first = select(dataset, settings)
    content = dataset.selection_path("good").with_suffix(".json").read_bytes()
    second = select(dataset, settings)
    assert second.funnel == first.funnel
    assert (first.fresh, second.fresh) == (True, False)
    assert dataset.selection_path("good").with_suffix(".json").read_bytes() == content
    assert str(first.selected) in second.text()


def test_a_name_stands_for_one_selection(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="good", where="aesthetic > 5"))
    keys = dataset.selection_keys("good")
    with pytest.raises(ConfigError, match=r"'aesthetic > 5'.*--overwrite"):
        select(dataset, SelectSettings(name="good", where="aesthetic > 6"))
    assert dataset.selection_keys("good") == keys
    select(dataset, SelectSettings(name="good", where="aesthetic > 6", overwrite=True))
    assert len(dataset.selection_keys("good")) < len(keys)


def test_new_scores_make_an_old_selection_stale(dataset: Dataset) -> None:
    settings = SelectSettings(name="good", where="aesthetic > 5")
    select(dataset, settings)
    scores = dataset.read_table("scores", "00000")
    dataset.write_table("scores", scores.slice(0, 50), "00000")
    with pytest.raises(ConfigError, match="earlier state"):
        select(dataset, settings)


def test_the_record_says_what_was_done(dataset: Dataset) -> None:
    summary = select(dataset, SelectSettings(name="good", where=WHERE))
    record = json.loads(dataset.selection_path("good").with_suffix(".json").read_text())
    assert record["where"] == WHERE
    assert record["selected"] == summary.selected
    assert len(record["funnel"]) == 4
    assert record["tables_version"]
    assert record["versions"]["duckdb"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("aestetic > 5", "did you mean 'aesthetic'"),
        ("aesthetic + 1", "no yes or no"),
        ("alt_text > 3", "does not work"),
        ("CAST(alt_text AS INTEGER) > 3", "cannot be computed"),
        ("avg(aesthetic) > 3", "does not work"),
        ("(SELECT true)", "subquery"),
    ],
)
def test_a_wrong_rule_is_one_sentence_and_writes_nothing(
    dataset: Dataset, where: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        select(dataset, SelectSettings(name="good", where=where))
    assert "\n" not in str(caught.value)
    assert dataset.selections() == []


def test_the_connection_reads_the_tables_and_no_other_file(dataset: Dataset) -> None:
    import duckdb

    (dataset.directory.parent / "secret.csv").write_text("a\n1\n")
    view = sample_view(dataset)
    with pytest.raises(duckdb.Error, match=r"[Pp]ermission"):
        view.execute(f"SELECT * FROM '{dataset.directory.parent}/secret.csv'")
    with pytest.raises(duckdb.Error):
        view.execute("SET enable_external_access = true")
    assert len(view.execute("SELECT key FROM sample").fetchall()) == 360


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "a/b"])
def test_a_name_must_be_a_plain_file_name(dataset: Dataset, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a selection"):
        select(dataset, SelectSettings(name=name))


def test_selecting_before_scoring_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [[]])
    with pytest.raises(DatasetError, match="no scores yet"):
        select(dataset, SelectSettings(name="a"))
