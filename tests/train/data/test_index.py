"""The index: what is in it, what is refused, and that memory does not grow with it."""

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.store.caption_blend import hash_uniform, key_numbers
from curate.store.dataset import Dataset
from tests.train.data.small_dataset import add_scores, make_dataset, select
from train.data.build import bucket_sizes
from train.data.columns import quantiles
from train.data.index import ROWS, build_index
from train.data.order import DataOrder
from train.settings import TrainSettings, model_config

KEYS = [f"k{number:06d}" for number in range(60)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path / "data", pictures=False)


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"model": "tiny-test", "validation_samples": 0, **changes})


def build(dataset: Dataset, selection: str = "all", keys=None, sources=None, **changes):
    given = settings(**changes)
    return build_index(dataset, given, model_config(given), selection, sources, keys)


def every(index) -> np.ndarray:
    return np.arange(len(index))


def drop_captions(dataset: Dataset, kind: str, keys: list[str]) -> None:
    for shard in dataset.shards():
        table = dataset.read_table("captions", shard, "vlm")
        gone = pc.and_(pc.equal(table["kind"], kind), pc.is_in(table["key"], pa.array(keys)))
        dataset.write_table("captions", table.filter(pc.invert(gone)), shard, "vlm")


def test_rows_stand_by_shard_and_place_with_all_their_captions(dataset: Dataset) -> None:
    index, held_out = build(dataset)
    rows = every(index)
    assert index.keys(rows) == KEYS
    assert index.shards(rows) == ["00000"] * 30 + ["00001"] * 30
    np.testing.assert_array_equal(index.numbers(rows), key_numbers(KEYS))
    assert index.sizes(rows).tolist() == [[24, 24]] * 60
    assert index.kinds == ["alt", "descriptive", "short"]
    assert index.captions(rows[[4, 3]], "descriptive") == [
        [(0, "a plain green square"), (1, "everything is green")],
        [(0, "a plain red square"), (1, "everything is red")],
    ]
    assert index.captions(rows[:1], "alt") == [[(0, "IMG_0.jpg")]]
    assert index.loss_weights(rows).tolist() == [1.0] * 60
    assert index.weights is None
    assert sorted(index.texts(["short"])) == ["blue"] * 20 + ["green"] * 20 + ["red"] * 20
    assert len(held_out) == 0


def test_rejected_captions_are_left_out_and_kinds_of_two_writers_need_a_choice(
    dataset: Dataset,
) -> None:
    table = dataset.read_table("captions", "00000", "vlm")
    dataset.write_table("captions", table, "00000", "other")
    with pytest.raises(ConfigError, match=r"in which order, as in descriptive=other\+vlm"):
        build(dataset)
    index, _ = build(dataset, sources={"descriptive": "vlm"})
    # Nobody said whose short captions to take, and the blend wants none.
    assert index.kinds == ["alt", "descriptive"]
    rejected = pa.array(["rejected"] * table.num_rows)
    status = table.schema.get_field_index("status")
    dataset.write_table("captions", table.set_column(status, "status", rejected), "00000", "vlm")
    with pytest.raises(ConfigError, match="30 of 60 samples have no descriptive caption"):
        build(dataset, sources={"descriptive": "vlm"})


def test_a_picture_without_a_caption_is_refused_with_a_count_or_dropped(dataset: Dataset) -> None:
    drop_captions(dataset, "descriptive", KEYS[:2])
    with pytest.raises(ConfigError, match="2 of 60 samples have no descriptive caption"):
        build(dataset)
    # An arm that does not want them has the same index.
    assert len(build(dataset, captions={"short": 1.0})[0]) == 60
    index, _ = build(dataset, missing_captions="drop")
    assert index.keys(every(index)) == KEYS[2:]
    assert index.dropped == 2
    drop_captions(dataset, "descriptive", KEYS[3:])
    drop_captions(dataset, "short", KEYS[:3])
    with pytest.raises(ConfigError, match="No sample has captions of all of descriptive, short"):
        build(dataset, missing_captions="drop", captions={"short": 0.5, "descriptive": 0.5})


def test_a_blend_that_falls_back_leaves_out_pictures_with_none_of_its_kinds(
    dataset: Dataset,
) -> None:
    drop_captions(dataset, "descriptive", KEYS[:40])
    drop_captions(dataset, "short", KEYS[:2])
    both = {"captions": {"descriptive": 0.5, "short": 0.5}}
    with pytest.raises(ConfigError, match="to fallback to show them with another kind"):
        build(dataset, **both)
    index, held_out = build(dataset, **both, missing_captions="fallback", validation_samples=9)
    assert index.dropped == 2
    assert not {*index.keys(every(index)), *held_out.keys(every(held_out))} & {*KEYS[:2]}
    assert index.has(every(index), "short").all()
    assert index.has(every(index), "descriptive").sum() == len(index) - index.lacking["descriptive"]
    select(dataset, "none", KEYS[:2])
    with pytest.raises(ConfigError, match="has captions of any of descriptive, short"):
        build(dataset, "none", **both, missing_captions="fallback")


def test_what_is_not_there_is_one_sentence(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"There is no selection 'none' \(selections: all\)"):
        build(dataset, "none")
    with pytest.raises(ConfigError, match="There are no tags captions yet"):
        build(dataset, captions={"tags": 1.0})
    select(dataset, "empty", [])
    with pytest.raises(DatasetError, match="'empty' is empty"):
        build(dataset, "empty")
    select(dataset, "gone", [*KEYS[:2], "lost"])
    with pytest.raises(DatasetError, match="1 selected samples are not stored"):
        build(dataset, "gone")


def test_an_index_is_made_once_and_anew_when_its_tables_change(dataset: Dataset) -> None:
    first, _ = build(dataset)
    again, _ = build(dataset, captions={"short": 1.0}, seed=3)
    assert again.folder == first.folder
    other, _ = build(dataset, keys=KEYS[::-1][:20])
    assert other.keys(every(other)) == KEYS[40:]
    assert other.folder != first.folder
    select(dataset, "all", KEYS[:30])
    assert len(build(dataset)[0]) == 30


def test_the_fingerprint_is_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        made = make_dataset(tmp_path / name, pictures=False)
        prints.append(build(made)[0].fingerprint)
    assert prints[0] == prints[1]
    drop_captions(made, "short", KEYS[:1])
    assert build(made)[0].fingerprint != prints[0]


def test_held_out_rows_hang_on_the_key_alone(dataset: Dataset) -> None:
    share = {"validation_share": 0.3, "validation_samples": 5}
    training, held_out = build(dataset, **share)
    u = hash_uniform(key_numbers(KEYS), 0, 0, 5)
    lowest = [KEYS[row] for row in np.argsort(u)[:5]]
    assert held_out.keys(every(held_out)) == lowest
    assert training.keys(every(training)) == [k for k, v in zip(KEYS, u, strict=True) if v >= 0.3]
    select(dataset, "few", KEYS[::3])
    few, _ = build(dataset, "few", **share)
    assert set(few.keys(every(few))) <= set(training.keys(every(training)))


def test_a_share_may_hold_nothing_out_and_not_everything(dataset: Dataset) -> None:
    training, held_out = build(dataset, validation_share=0.0, validation_samples=4)
    assert (len(training), len(held_out)) == (60, 0)
    u = hash_uniform(key_numbers(KEYS), 0, 0, 5)
    low = [KEYS[row] for row in np.argsort(u)[:2]]
    with pytest.raises(ConfigError, match="All 2 samples would be held out"):
        build(dataset, keys=low, validation_share=0.5, validation_samples=4)


def test_a_prior_selection_is_half_of_the_draws_and_has_its_own_loss_weight(
    dataset: Dataset,
) -> None:
    select(dataset, "mine", KEYS[:4])
    select(dataset, "class", KEYS[2:60])
    index, _ = build(dataset, "mine", prior_selection="class", prior_loss_weight=0.5)
    assert index.keys(every(index)) == KEYS
    assert index.loss_weights(every(index)).tolist() == [1.0] * 4 + [0.5] * 56
    weights = np.diff(index.weights, prepend=0)
    assert weights[:4].sum() == pytest.approx(0.5)
    order = DataOrder(index.buckets, 10, 0, cumulative_weights=index.weights)
    rows = np.concatenate([order.batch(step)[0] for step in range(60)])
    assert (rows < 4).mean() == pytest.approx(0.5, abs=0.02)


def test_weights_of_a_stored_selection_are_taken(dataset: Dataset) -> None:
    select(dataset, "balanced", KEYS[:3], [1.0, 2.0, 5.0])
    index, _ = build(dataset, "balanced")
    assert np.diff(index.weights, prepend=0) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    select(dataset, "alike", KEYS[:3], [2.0, 2.0, 2.0])
    assert build(dataset, "alike")[0].weights is None
    select(dataset, "bad", KEYS[:2], [-1.0, 2.0])
    with pytest.raises(DatasetError, match="weights must be finite"):
        build(dataset, "bad")


def test_scores_become_quantile_buckets_and_unknown_ones_zero(dataset: Dataset) -> None:
    scores = {key: float(number - 30) for number, key in enumerate(KEYS)}
    scores |= {KEYS[0]: None, KEYS[1]: float("nan")}
    add_scores(dataset, aesthetic=scores, clip=dict.fromkeys(KEYS, 1.0))
    index, _ = build(dataset, condition_on=("aesthetic", "clip"), condition_buckets=4)
    buckets = index.conditions(every(index))
    assert buckets[:2, 0].tolist() == [0, 0]
    counts = np.bincount(buckets[:, 0], minlength=5)
    assert counts[0] == 2
    assert counts[1:].sum() == 58
    assert np.ptp(counts[1:]) <= 1
    assert (np.diff(buckets[2:, 0]) >= 0).all()
    assert len(set(buckets[:, 1].tolist())) == 1
    with pytest.raises(ConfigError, match="no score 'aestetic'; did you mean 'aesthetic'"):
        build(dataset, condition_on=("aestetic",))


def test_quantiles_are_exact_whatever_the_sign_and_spread() -> None:
    values = np.random.default_rng(0).standard_cauchy(5003).astype(np.float32)
    parts = np.split(values, [100, 4000])
    expected = np.sort(values)[np.arange(1, 7) * len(values) // 7]
    assert quantiles(parts, 7) == expected.tolist()
    assert quantiles([np.full(3, np.nan, np.float32)], 7) == []


def test_buckets_hold_the_pictures_of_their_aspect(tmp_path: Path) -> None:
    sizes = ((64, 32), (32, 64), (48, 48), (50, 48))
    dataset = make_dataset(tmp_path, 40, sizes=sizes, pictures=False)
    index, _ = build(dataset, aspect_buckets=True, resolution=32, bucket_step=8)
    aspects = []
    for bucket in index.buckets:
        rows = np.arange(bucket.start, bucket.stop)
        stored = index.sizes(rows)
        np.testing.assert_allclose(
            np.log(stored[:, 1] / stored[:, 0]), np.log(bucket.width / bucket.height), atol=0.3
        )
        aspects.append(bucket.width / bucket.height)
    assert aspects == sorted(aspects)
    assert len(aspects) == 3
    assert index.buckets[-1].stop == len(index) == 40


def test_bucket_sizes_are_multiples_of_about_the_same_area() -> None:
    sizes = bucket_sizes(settings(aspect_buckets=True, max_aspect=2.5), 1024)
    assert (1024, 1024) in sizes
    assert {(h, w) for w, h in sizes} == set(sizes)
    for width, height in sizes:
        assert width % 64 == height % 64 == 0
        assert max(width / height, height / width) <= 2.5
        assert width * height == pytest.approx(1024**2, rel=0.07)
    with pytest.raises(ConfigError, match="lower it"):
        bucket_sizes(settings(aspect_buckets=True, bucket_step=96), 32)


def test_rows_lie_across_record_batches(tmp_path: Path) -> None:
    count = ROWS + 100
    dataset = make_dataset(tmp_path, count, shards=3, pictures=False)
    index, _ = build(dataset)
    rows = np.array([ROWS + 7, 5, ROWS - 1, ROWS])
    assert index.keys(rows) == [f"k{row:06d}" for row in rows]
    np.testing.assert_array_equal(index.numbers(rows), key_numbers(index.keys(rows)))
    for row, own in zip(rows.tolist(), index.captions(rows, "alt"), strict=True):
        assert own == [(0, f"IMG_{row}.jpg")]


MEASURE = """
import sys, tracemalloc
import numpy, pyarrow
from curate.store.dataset import Dataset
from train.data.captions import CaptionDraws
from train.data.index import build_index
from train.data.order import DataOrder
from train.settings import TrainSettings, model_config
settings = TrainSettings(model="tiny-test", validation_samples=4)
tracemalloc.start()
index, _ = build_index(Dataset(sys.argv[1]), settings, model_config(settings), "all")
order, draws = DataOrder(index.buckets, 64, 0), CaptionDraws(index, settings)
for step in range(100):
    draws.draw(*order.batch(step))
python = tracemalloc.get_traced_memory()[1]
print(len(index), (python + pyarrow.default_memory_pool().max_memory()) >> 20)
"""


def large(folder: Path, count: int) -> Dataset:
    """Tables of so many samples with three long captions each, and nothing else."""
    dataset = Dataset.create(folder, {}, {})
    text = " || ".join(["'a picture of number ' || i", *["' and more words of it'"] * 5])
    tables = {
        dataset.table_path("samples"): "SELECT key, '00000' AS shard, i AS row, 24 AS width, "
        "24 AS height, 'stored' AS status, key AS sha256 FROM numbered",
        dataset.table_path("captions", source="vlm"): f"SELECT key, unnest(['descriptive', "
        f"'short', 'alt']) AS kind, 0 AS sample_index, {text} AS text, 'ok' AS status "
        f"FROM numbered ORDER BY hash(i)",
        dataset.selection_path("all"): "SELECT key FROM numbered",
    }
    with duckdb.connect() as connection:
        connection.execute(
            f"CREATE VIEW numbered AS SELECT i, md5(i::VARCHAR) AS key FROM range({count}) t(i)"
        )
        for path, rows in tables.items():
            path.parent.mkdir(parents=True)
            connection.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")
    return dataset


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = {}
    for count in (10_000, 120_000):
        dataset = large(tmp_path / str(count), count)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(dataset.directory)],
            capture_output=True,
            text=True,
            check=True,
        )
        rows, peaks[count] = map(int, done.stdout.split())
        assert rows > 0.85 * count
    # The captions alone are 48 MB; record batches take their share at either size. DuckDB's own
    # memory is not counted here: it keeps to its limit and sorts the rest on disk.
    assert peaks[120_000] < peaks[10_000] + 30
