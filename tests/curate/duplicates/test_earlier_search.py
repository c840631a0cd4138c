"""New samples beside old: only the new are searched; the tables are those of one search."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import curate.duplicates.search
from curate.duplicates.search import find_duplicates
from curate.duplicates.settings import DuplicateSettings
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.store.dataset import Dataset
from tests.curate.duplicates.test_search import EDITS, jpeg
from tests.curate.tiny import drawn, make_dataset, tiny_clip

SETTINGS = DuplicateSettings(embedding_similarity=0.5, semdedup_epsilon=0.001)
TABLES = ("duplicate_pairs", "duplicates", "duplicate_searched")
Score = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Score:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    stage = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))

    def run(dataset: Dataset) -> None:
        for shard in dataset.shards():
            if not stage.is_done(dataset, shard):
                stage.run(dataset, shard)

    return run


def shards(seed: int = 0) -> list[list[tuple[bytes, str | None]]]:
    """Three shards: originals, copies of some within and across shards, and strangers."""
    pictures = [Image.fromarray(drawn(seed + number, 160, 128)) for number in range(12)]
    names = list(EDITS)
    edit = {number: EDITS[names[number % len(names)]] for number in range(12)}
    first = [(jpeg(picture, 92), f"{i} a") for i, picture in enumerate(pictures[:8])]
    second = [(edit[i](pictures[i]), f"{i} b") for i in range(6)]
    second += [(jpeg(pictures[0], 92), "0 again"), (jpeg(pictures[8]), "8 b")]
    third = [(edit[i + 3](pictures[i]), f"{i} c") for i in range(3, 9)]
    third += [(jpeg(picture, 92), f"{i} c") for i, picture in enumerate(pictures[9:], 9)]
    return [first, second, third]


def part_of(whole: Dataset, names: list[str], directory: Path) -> Dataset:
    """A dataset with only some of the shards, as an earlier state of it."""
    directory.mkdir()
    shutil.copy(whole.record_path, directory)
    part = Dataset(directory)
    for name in names:
        add_shard(whole, part, name)
    return part


def add_shard(whole: Dataset, part: Dataset, name: str) -> None:
    for table in ("samples", "scores", "embeddings", "fingerprints"):
        target = part.table_path(table, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole.table_path(table, name), target)
    part.input_path(name).parent.mkdir(exist_ok=True)
    shutil.copy(whole.input_path(name), part.input_path(name))


def rows(dataset: Dataset) -> dict[str, list[dict]]:
    return {table: dataset.read_table(table).to_pylist() for table in TABLES}


@pytest.fixture(scope="module")
def whole(score: Score, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    dataset = make_dataset(tmp_path_factory.mktemp("whole") / "d", shards())
    score(dataset)
    find_duplicates(dataset, SETTINGS)
    return dataset


def test_shards_one_after_the_other_give_the_tables_of_one_search(
    whole: Dataset, tmp_path: Path
) -> None:
    dataset = part_of(whole, [], tmp_path / "d")
    for name in whole.shards():
        add_shard(whole, dataset, name)
        counts = find_duplicates(dataset, SETTINGS)
    assert rows(dataset) == rows(whole)
    assert counts["near_pairs"] > 10


def test_old_samples_are_not_compared_with_each_other_again(
    whole: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = part_of(whole, whole.shards()[:2], tmp_path / "d")
    find_duplicates(dataset, SETTINGS)
    old = set(dataset.read_table("duplicate_searched").column("key").to_pylist())
    add_shard(whole, dataset, whole.shards()[2])
    asked = []
    real = curate.duplicates.search.Verifier.copies

    def copies(self, pairs, *rest):  # type: ignore[no-untyped-def]
        asked.extend(self.samples.keys[pairs].astype(str).tolist())
        return real(self, pairs, *rest)

    monkeypatch.setattr(curate.duplicates.search.Verifier, "copies", copies)
    find_duplicates(dataset, SETTINGS)
    assert asked
    assert not [pair for pair in asked if set(pair) <= old]
    assert rows(dataset) == rows(whole)


def test_another_quality_searches_nothing_and_regroups(
    whole: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = part_of(whole, whole.shards(), tmp_path / "d")
    before = find_duplicates(dataset, SETTINGS)

    def never(*_):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing is left to verify")

    smallest = SETTINGS.model_copy(update={"quality": ["-width * height", "key"]})
    pairs = dataset.read_table("duplicate_pairs")
    with monkeypatch.context() as patch:
        patch.setattr(curate.duplicates.search.Verifier, "__init__", lambda *_: None)
        patch.setattr(curate.duplicates.search.Verifier, "copies", lambda *a: no_pairs(*a, never))
        patch.setattr(
            curate.duplicates.search.Verifier,
            "worthwhile",
            lambda *a: no_pairs(*a, never),
            raising=False,
        )
        after = find_duplicates(dataset, smallest)
    assert after["near_pairs"] == before["near_pairs"]
    assert dataset.read_table("duplicate_pairs").num_rows == pairs.num_rows


def no_pairs(verifier, first, *rest):  # type: ignore[no-untyped-def]
    """An empty question has an empty answer; any other is a mistake here."""
    if len(first):
        rest[-1]()
    return np.empty((0, 2), np.int64)


def test_other_settings_search_again(whole: Dataset, tmp_path: Path) -> None:
    dataset = part_of(whole, whole.shards(), tmp_path / "d")
    find_duplicates(dataset, SETTINGS.model_copy(update={"near_bits": 0, "neighbours": 1}))
    find_duplicates(dataset, SETTINGS)
    assert rows(dataset) == rows(whole)


def test_a_search_killed_between_its_tables_continues_to_the_same_tables(
    whole: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for killed_before in TABLES:
        dataset = part_of(whole, whole.shards()[:2], tmp_path / killed_before)
        find_duplicates(dataset, SETTINGS)
        add_shard(whole, dataset, whole.shards()[2])
        write = Dataset.write_table

        def dying(self, table, rows, *rest):  # type: ignore[no-untyped-def]
            if table == killed_before:  # noqa: B023
                raise KeyboardInterrupt
            return write(self, table, rows, *rest)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "write_table", dying)
            with pytest.raises(KeyboardInterrupt):
                find_duplicates(dataset, SETTINGS)
        find_duplicates(dataset, SETTINGS)
        assert rows(dataset) == rows(whole)


KILLED = """
import os, signal, sys
from curate.store.dataset import Dataset
from curate.duplicates.search import find_duplicates
from curate.duplicates.settings import DuplicateSettings
write = Dataset.write_table
def killed(self, table, *rest):
    if table == "duplicate_searched":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, table, *rest)
Dataset.write_table = killed
settings = DuplicateSettings(embedding_similarity=0.5, semdedup_epsilon=0.001)
find_duplicates(Dataset.open(sys.argv[1]), settings)
"""


def test_after_kill_9_the_tables_are_the_same_and_no_scratch_file_is_left(
    whole: Dataset, tmp_path: Path
) -> None:
    dataset = part_of(whole, whole.shards(), tmp_path / "d")
    process = subprocess.run([sys.executable, "-c", KILLED, dataset.directory])
    assert process.returncode == -signal.SIGKILL
    assert list(dataset.directory.glob(".scratch-*"))
    assert dataset.has_table("duplicate_pairs")
    assert not dataset.has_table("duplicates")
    find_duplicates(dataset, SETTINGS)
    assert rows(dataset) == rows(whole)
    assert not list(dataset.directory.glob(".scratch-*"))


def test_a_sample_that_is_gone_takes_its_pairs_along(whole: Dataset, tmp_path: Path) -> None:
    dataset = part_of(whole, whole.shards(), tmp_path / "d")
    find_duplicates(dataset, SETTINGS)
    gone = whole.shards()[1]
    for table in ("samples", "scores", "embeddings", "fingerprints"):
        dataset.table_path(table, gone).unlink()
    dataset.input_path(gone).unlink()
    find_duplicates(dataset, SETTINGS)
    alone = part_of(whole, [whole.shards()[0], whole.shards()[2]], tmp_path / "alone")
    find_duplicates(alone, SETTINGS)
    assert rows(dataset) == rows(alone)


def test_semdedup_pairs_are_all_cosines_above_its_threshold(whole: Dataset) -> None:
    table = pa.concat_tables(
        [whole.read_table("embeddings", shard) for shard in whole.shards()]
    ).to_pydict()
    vectors = np.array(table["image"], np.float32)
    near = vectors @ vectors.T >= 0.9991  # clear of the rounding at the very threshold
    keys = table["key"]
    expected = {
        tuple(sorted((keys[a], keys[b])))
        for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True)
    }
    exact = {
        (row["key_a"], row["key_b"])
        for row in whole.read_table("duplicate_pairs").to_pylist()
        if row["method"] == "exact"
    }
    found = {
        (row["key_a"], row["key_b"])
        for row in whole.read_table("duplicate_pairs").to_pylist()
        if row["method"] == "semdedup"
    }
    stand_ins = {key for pair in exact for key in pair}
    assert {pair for pair in expected if not stand_ins & set(pair)} <= found
    assert exact <= found
