"""Presets on a generated dataset select what pandas does, and the command speaks of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from curate.selection.preset_list import PRESETS
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from pipelines.bench.common.generate_dataset import Shape, generate
from pipelines.bench.select import pandas_filters
from pipelines.bench.select.beside_pandas import joined_metadata
from pipelines.cli import cli

SHAPE = Shape(rows=3_000, picture_shards=0, embedding_width=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return generate(tmp_path_factory.mktemp("generated") / "d", SHAPE)


def test_a_preset_and_pandas_select_the_same_samples(dataset: Dataset, tmp_path: Path) -> None:
    metadata = joined_metadata(dataset, tmp_path / "metadata")
    for name in pandas_filters.FILTERS:
        pandas_filters.main(metadata, name, tmp_path / "keys.npy")
        select(dataset, SelectSettings(preset=name, keep_duplicates=True))
        theirs = np.load(tmp_path / "keys.npy").astype(str).tolist()
        assert dataset.selection_keys(name) == theirs
        assert theirs


def test_a_generated_dataset_is_the_same_every_time(dataset: Dataset, tmp_path: Path) -> None:
    again = generate(tmp_path / "again", SHAPE)
    for path in dataset.directory.glob("tables/**/*.parquet"):
        other = again.directory / path.relative_to(dataset.directory)
        assert pq.read_table(path).equals(pq.read_table(other))
    assert generate(again.directory, SHAPE).directory == again.directory


def test_presets_are_listed_without_a_dataset() -> None:
    result = CliRunner().invoke(cli, ["select", "--list-presets"])
    assert result.exit_code == 0
    assert all(f"{name}\n" in result.output for name in PRESETS)


def test_numbers_and_columns_of_a_preset_are_options(dataset: Dataset) -> None:
    options = ["--preset", "datacomp-clip", "--preset-values", "fraction=0.5", "--name", "half"]
    result = CliRunner().invoke(cli, ["select", str(dataset.directory), *options])
    assert result.exit_code == 0, result.output
    assert "datacomp_top_fraction(clip_similarity, 0.5)" in result.output
    options = ["--preset", "laion-aesthetics", "--name", "plus"]
    options += ["--preset-columns", "aesthetic=aesthetic + 10"]
    result = CliRunner().invoke(cli, ["select", str(dataset.directory), *options])
    assert result.exit_code == 0, result.output
    assert dataset.selection_record("plus")["preset"]["columns"] == {
        "aesthetic": "(aesthetic + 10)"
    }
