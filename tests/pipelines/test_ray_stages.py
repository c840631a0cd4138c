"""Stages on real Ray: skipping what is done, retrying what fails, refusing what cannot work."""

import os
import sys
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, StageError
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.ray_stages import ray_session, run_stage

SHARDS = ["00000", "00001", "00002"]


@pytest.fixture(scope="module", autouse=True)
def ray():
    from ray import cloudpickle

    # Workers cannot import a test module, so its stages travel whole.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_session(cpus=2):
        yield


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    dataset = Dataset.create(tmp_path / "data", {}, {})
    for shard in SHARDS:
        path = dataset.input_path(shard)
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"key": [shard + "a", shard + "b"]}), path)
    return dataset


class Count(Stage):
    """Writes a score; fails as often as told on one shard."""

    name: ClassVar[str] = "count"
    adds: ClassVar[tuple[str, ...]] = ("scores",)

    def __init__(self, fail_on: str = "", failures: int = 0, die: bool = False) -> None:
        self.fail_on, self.failures, self.die = fail_on, failures, die

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        if shard == self.fail_on:
            marks = sorted(dataset.directory.glob("failed-*"))
            if len(marks) < self.failures:
                (dataset.directory / f"failed-{len(marks)}").touch()
                if self.die:
                    os.kill(os.getpid(), 9)
                raise OSError("the disk sighed")
        keys = pq.read_table(dataset.input_path(shard)).column("key")
        dataset.write_table("scores", pa.table({"key": keys, "one": [1, 1]}), shard)
        return {"rows": len(keys)}


class Unopenable(Count):
    def open(self) -> None:
        raise ConfigError("The weights file x does not exist.")


def test_every_shard_is_done_once_and_a_second_run_does_nothing(dataset):
    first = run_stage(Count(), dataset, workers=2)
    assert (first.shards_done, first.counts) == (3, {"rows": 6})
    second = run_stage(Count(), dataset, workers=2)
    assert (second.shards_done, second.shards_skipped) == (0, 3)


@pytest.mark.parametrize("die", [False, True])
def test_a_shard_that_fails_once_is_tried_again(dataset, die):
    summary = run_stage(Count("00001", failures=1, die=die), dataset, workers=1)
    assert summary.counts == {"rows": 6}


def test_a_shard_that_keeps_failing_stops_the_run_at_its_end_and_a_rerun_continues(dataset):
    with pytest.raises(StageError, match=r"1 of 3 shards, first 00001.*the disk sighed"):
        run_stage(Count("00001", failures=2), dataset, workers=2)
    assert dataset.has_shard("scores", "00002")
    assert run_stage(Count("00001", failures=2), dataset, workers=2).shards_done == 1


def test_a_setting_that_only_shows_in_the_worker_comes_back_as_its_own_sentence(dataset):
    with pytest.raises(ConfigError, match="The weights file x does not exist"):
        run_stage(Unopenable(), dataset, workers=1)
