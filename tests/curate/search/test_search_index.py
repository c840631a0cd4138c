"""The index over stored embeddings: exact while few, codes beyond, made anew when it changed."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.base.arrow_columns import to_arrow
from curate.base.errors import ConfigError, DatasetError
from curate.search import index as index_module
from curate.search.index import PictureIndex, is_built, open_index
from curate.store.check import check
from curate.store.dataset import Dataset
from pipelines.bench.view.vectors import MadeVectors
from tests.curate.tiny import drawn, encoded, make_dataset

WIDTH = 32
MADE = MadeVectors(WIDTH)


def embed(dataset: Dataset, shard: str, vectors: np.ndarray, column: str = "image") -> None:
    keys = [f"{shard}{row:027d}" for row in range(len(vectors))]
    image = to_arrow(vectors.astype(np.float16), None, pa.list_(pa.float16()))
    columns = {"key": keys, "image": image, "text": pa.nulls(len(keys), image.type), column: image}
    dataset.write_table("embeddings", pa.table(columns), shard)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = make_dataset(tmp_path / "d", [[(encoded(drawn(0)), "a")], [(encoded(drawn(1)), "b")]])
    embed(made, "00000", MADE.pictures(2000, 0))
    embed(made, "00001", MADE.pictures(1500, 2000))
    return made


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(index_module, "EXACT_AMONG", 100)


def truth(index: PictureIndex, query: np.ndarray, count: int) -> np.ndarray:
    every = index.vectors.take(np.arange(len(index)))
    return np.argsort(-(every @ query), kind="stable")[:count]


def test_few_are_compared_with_all(dataset: Dataset) -> None:
    index = open_index(dataset)
    query = MADE.questions(1)[1][0]
    rows, similarity = index.nearest(query, 10)
    assert rows.tolist() == truth(index, query, 10).tolist()
    assert np.all(np.diff(similarity) <= 0)
    first = index.vectors.keys(rows)[0]
    assert index.vectors.row_of(first) == rows[0]
    assert index.shards_of(np.array([0, 1999, 2000])) == ["00000", "00001"]


def test_codes_find_what_exact_search_finds(dataset: Dataset, coded: None) -> None:
    index = open_index(dataset)
    assert len(list(index.folder.glob("codes-*.faiss"))) == 1
    for asked in MADE.questions(20):
        near = [np.intersect1d(index.nearest(q, 10)[0], truth(index, q, 10)) for q in asked]
        assert np.mean([len(hits) for hits in near]) >= 9.5
    among = np.zeros(len(index), bool)
    among[::7] = True
    rows, _ = index.nearest(MADE.questions(1)[0][0], 400, among)
    assert len(rows) == 400
    assert among[rows].all()


def test_a_picture_without_embedding_is_never_found(dataset: Dataset) -> None:
    vectors = MADE.pictures(3, 0).astype(np.float32)
    vectors[1] = np.nan
    embed(dataset, "00000", vectors)
    embed(dataset, "00001", np.full((2, WIDTH), np.nan))
    rows, _ = open_index(dataset).nearest(-vectors[0], 10)
    assert sorted(rows) == [0, 2]


def test_it_is_built_once_and_again_when_the_embeddings_changed(dataset: Dataset) -> None:
    assert not is_built(dataset)
    before = open_index(dataset)
    first = before.folder
    assert open_index(dataset).folder == first
    assert is_built(dataset)
    embed(dataset, "00001", MADE.pictures(5, 9000))
    assert not is_built(dataset)
    second = open_index(dataset)
    assert len(second) == 2005
    assert [path.name for path in first.parent.iterdir()] == [second.folder.name]
    rows, _ = before.nearest(MADE.questions(1)[0][0], 5)  # who is at it goes on
    assert len(before.vectors.keys(rows)) == 5
    (second.folder / "vectors.f16").write_bytes(b"cut")
    assert len(open_index(dataset)) == 2005
    strays = [fault for fault in check(dataset).holes if "search" in str(fault.path)]
    assert strays == []


def test_lost_embeddings_are_no_smaller_dataset(dataset: Dataset) -> None:
    dataset.table_path("embeddings", "00001").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"embeddings/00001\.parquet is"):
        open_index(dataset)


def test_a_build_that_fails_leaves_nothing(dataset: Dataset) -> None:
    embed(dataset, "00001", np.zeros((4, WIDTH // 2)))
    with pytest.raises(DatasetError, match="others have 32"):
        open_index(dataset)
    assert list((dataset.directory / "search").iterdir()) == []


def test_a_dataset_that_cannot_be_written_is_searched_by_an_index_elsewhere(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (dataset.directory / "search").write_text("root may write anywhere, but not below a file")
    index = open_index(dataset)
    assert index.folder.parent.parent == tmp_path
    assert is_built(dataset)
    assert open_index(dataset).folder == index.folder
    assert not (dataset.directory / ".locks").exists()
    (dataset.directory / "search").unlink()  # and one that came with it is used
    shutil.copytree(index.folder, dataset.directory / "search" / index.folder.name)
    assert open_index(dataset).folder.parent.parent == dataset.directory


def test_further_models_have_an_index_of_their_own(dataset: Dataset) -> None:
    open_index(dataset)
    for shard in dataset.shards():
        embed(dataset, shard, MADE.pictures(4, 50), "image_b32")
    assert open_index(dataset, "b32").folder.name.startswith("image_b32-")
    with pytest.raises(ConfigError, match="did you mean 'b32'"):
        open_index(dataset, "b33")
