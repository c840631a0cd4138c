"""Decontamination: which samples show a picture of a reference set."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import curate.duplicates.reference_folder
from curate.base.errors import ConfigError, DatasetError
from curate.duplicates.references import find_references
from curate.duplicates.settings import ReferenceSettings
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from tests.curate.duplicates.test_search import EDITS, cut, jpeg
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip

Score = Callable[[Dataset], None]
SETTINGS = ReferenceSettings(name="eval")


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Score:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    stage = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))

    def run(dataset: Dataset) -> None:
        for shard in dataset.shards():
            stage.run(dataset, shard)

    return run


def evaluation(folder: Path, count: int = 6) -> list[Image.Image]:
    """Drawn pictures in a folder and its sub-folder, one file that is no picture, and a text."""
    pictures = [Image.fromarray(drawn(seed, 160, 128)) for seed in range(count)]
    (folder / "deep").mkdir(parents=True)
    for number, picture in enumerate(pictures):
        place = folder if number % 2 else folder / "deep"
        (place / f"{number}.jpg").write_bytes(jpeg(picture, 95))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")
    return pictures


@pytest.fixture(scope="module")
def crawled(score: Score, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Strangers, an equal file, two equal near copies, a mirrored one, and a broken sample."""
    pictures = [Image.fromarray(drawn(seed, 160, 128)) for seed in range(6)]
    half = EDITS["half size"](pictures[2])
    samples = [(encoded(drawn(seed)), f"stranger {seed}") for seed in range(100, 108)]
    samples += [(jpeg(pictures[1], 95), "1 equal"), (half, "2 near"), (half, "2 near again")]
    samples += [(EDITS["mirror"](pictures[4]), "4 near"), (b"broken", "broken")]
    dataset = make_dataset(tmp_path_factory.mktemp("crawled") / "d", [samples[:9], samples[9:]])
    score(dataset)
    return dataset


@pytest.fixture
def dataset(crawled: Dataset, tmp_path: Path) -> Dataset:
    shutil.copytree(crawled.directory, tmp_path / "d")
    return Dataset.open(tmp_path / "d")


def matches(dataset: Dataset, name: str = "eval") -> list[tuple[str, str, str]]:
    """(alt text, reference, method) of every match, sorted."""
    rows = dataset.connect().execute(
        "SELECT alt_text, reference, method FROM reference_matches JOIN samples USING (key) "
        f"WHERE \"references\" = '{name}' ORDER BY ALL"
    )
    return rows.fetchall()


def test_equal_and_near_samples_are_matched_with_the_file_that_they_show(
    dataset: Dataset, tmp_path: Path
) -> None:
    evaluation(tmp_path / "eval")
    summary = find_references(dataset, tmp_path / "eval", SETTINGS)
    assert matches(dataset) == [
        ("1 equal", "1.jpg", "exact"),
        ("2 near", "deep/2.jpg", "near"),
        ("2 near again", "deep/2.jpg", "near"),
        ("4 near", "deep/4.jpg", "near"),
    ]
    assert (summary.samples, summary.references, summary.unreadable) == (13, 6, 1)
    assert (summary.matched, summary.matched_references, summary.exact) == (4, 3, 1)
    assert "4 of 13 samples (30.769%)" in summary.text()


def test_a_selection_leaves_out_what_is_contaminated(dataset: Dataset, tmp_path: Path) -> None:
    evaluation(tmp_path / "eval")
    find_references(dataset, tmp_path / "eval", SETTINGS)
    chosen = SelectSettings(name="clean", where="not contaminated", keep_duplicates=True)
    assert select(dataset, chosen).selected == 13 - 4


def test_a_dataset_is_a_reference_too_and_the_answer_is_the_column_known(
    dataset: Dataset, score: Score, tmp_path: Path
) -> None:
    pictures = evaluation(tmp_path / "eval")
    old = make_dataset(tmp_path / "old", [[(jpeg(picture, 95), None) for picture in pictures]])
    score(old)
    summary = find_references(dataset, old.directory, SETTINGS, "known")
    assert (summary.matched, summary.exact) == (4, 1)
    keys = old.read_table("samples", "00000").column("key").to_pylist()
    assert {row[1] for row in matches(dataset)} == {keys[1], keys[2], keys[4]}
    fresh = SelectSettings(name="fresh", where="not known", keep_duplicates=True)
    assert select(dataset, fresh).selected == 13 - 4


def test_the_side_that_is_smaller_does_not_change_the_answer(
    dataset: Dataset, tmp_path: Path
) -> None:
    evaluation(tmp_path / "eval")
    find_references(dataset, tmp_path / "eval", SETTINGS)
    few = matches(dataset)
    for seed in range(200, 240):
        (tmp_path / "eval" / f"{seed}.png").write_bytes(encoded(drawn(seed)))
    summary = find_references(dataset, tmp_path / "eval", SETTINGS)
    assert summary.references == 46
    assert matches(dataset) == few


def test_a_folder_is_fingerprinted_once_and_a_changed_file_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation(tmp_path / "eval")
    monkeypatch.setattr(curate.duplicates.reference_folder, "_FILES", 3)
    read = []
    real = curate.duplicates.reference_folder._read

    def reading(store, paths, *rest):  # type: ignore[no-untyped-def]
        read.extend(paths)
        return real(store, paths, *rest)

    monkeypatch.setattr(curate.duplicates.reference_folder, "_read", reading)
    first = find_references(dataset, tmp_path / "eval", SETTINGS)
    assert len(read) == 7
    read.clear()
    assert find_references(dataset, tmp_path / "eval", SETTINGS) == first
    assert read == []
    (tmp_path / "eval" / "1.jpg").write_bytes(encoded(drawn(50)))
    changed = find_references(dataset, tmp_path / "eval", SETTINGS)
    assert "1.jpg" in read
    assert len(read) == 3
    assert changed.matched == first.matched - 1


def test_a_killed_fingerprinting_continues_where_it_stopped(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation(tmp_path / "eval")
    monkeypatch.setattr(curate.duplicates.reference_folder, "_FILES", 3)
    shard = curate.duplicates.reference_folder._shard
    done: list[str] = []

    def dying(references, name, *rest):  # type: ignore[no-untyped-def]
        if name == "00001" and not done:
            raise KeyboardInterrupt
        shard(references, name, *rest)

    monkeypatch.setattr(curate.duplicates.reference_folder, "_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        find_references(dataset, tmp_path / "eval", SETTINGS)
    done.append("once")
    assert find_references(dataset, tmp_path / "eval", SETTINGS).matched == 4


def test_what_is_wrong_is_said_before_any_work(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no pictures"):
        find_references(dataset, tmp_path / "empty", SETTINGS)
    with pytest.raises(ConfigError, match="missing"):
        find_references(dataset, tmp_path / "missing", SETTINGS)
    with pytest.raises(ConfigError, match="cannot name"):
        find_references(dataset, tmp_path / "empty", ReferenceSettings(name="../x"))
    with pytest.raises(ConfigError, match="own reference"):
        find_references(dataset, dataset.directory, SETTINGS)
    bare = make_dataset(tmp_path / "bare", [[(encoded(drawn(1)), "a")]])
    with pytest.raises(DatasetError, match="no fingerprints"):
        find_references(bare, tmp_path / "empty", SETTINGS)


def test_edits_of_real_evaluation_photographs_are_found_and_strangers_are_not(
    score: Score, tmp_path: Path, real_data: Path
) -> None:
    files = sorted((real_data / "openstax" / "images_512").rglob("*.jpg"))[::19]
    shown, strangers = files[:40], files[40:]
    (tmp_path / "eval").mkdir()
    for number, file in enumerate(shown):
        shutil.copy(file, tmp_path / "eval" / f"{number}.jpg")
    edits = [
        lambda image: jpeg(image, 60),
        EDITS["half size"],
        EDITS["darker"],
        EDITS["label"],
        lambda image: cut(image, 0.02, 0.03, 0.02, 0.02),
    ]
    samples = [(file.read_bytes(), "stranger") for file in strangers]
    for number, file in enumerate(shown[:30]):
        image = Image.open(file).convert("RGB")
        samples.append((edits[number % len(edits)](image), f"{number}.jpg"))
    dataset = make_dataset(tmp_path / "d", [samples])
    score(dataset)
    find_references(dataset, tmp_path / "eval", SETTINGS)
    found = matches(dataset)
    right = [row for row in found if row[0] == row[1]]
    assert len({row[0] for row in right}) >= 28
    assert np.mean([row[0] == "stranger" for row in found]) <= 0.05
