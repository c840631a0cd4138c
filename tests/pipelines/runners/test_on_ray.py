"""What only Ray proves: its actors die and are replaced, and what they write is what local does."""

import os
import shutil
import sys
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, StageError
from curate.store.contract import CAPTIONS_VOLATILE
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.commands.recaption import recaption
from pipelines.commands.score import on_top_of_stored, score
from pipelines.commands.train import TrainCommandSettings, train
from pipelines.demo.demo import recaption_settings
from pipelines.runners.choice import open_runner
from pipelines.runners.once import run_once
from pipelines.runners.protocol import Runner
from pipelines.runners.ray_session import ray_session
from pipelines.runners.settings import RunnerSettings
from pipelines.runners.shards import run_stage

SHARDS = ["00000", "00001", "00002"]


@pytest.fixture(scope="module", autouse=True)
def runner(curated):
    """One Ray for all tests of this module, which `auto` finds."""
    from ray import cloudpickle

    # Workers cannot import a test module, so its stages travel whole.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_session(cpus=2), open_runner(RunnerSettings()) as runner:
        yield runner


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


def test_a_shard_whose_actor_dies_is_tried_again_and_a_second_run_does_nothing(runner, dataset):
    first = run_stage(runner, Count("00001", failures=1, die=True), dataset, workers=2)
    assert (first.shards_done, first.counts) == (3, {"rows": 6})
    second = run_stage(runner, Count(), dataset, workers=2)
    assert (second.shards_done, second.shards_skipped) == (0, 3)


def test_a_shard_that_keeps_failing_stops_the_run_at_its_end_and_a_rerun_continues(runner, dataset):
    with pytest.raises(StageError, match=r"1 of 3 shards, first 00001.*the disk sighed"):
        run_stage(runner, Count("00001", failures=2), dataset, workers=1)
    assert dataset.has_shard("scores", "00002")
    assert run_stage(runner, Count("00001", failures=2), dataset, workers=1).shards_done == 1


def test_a_setting_that_only_shows_in_the_worker_comes_back_as_its_own_sentence(runner, dataset):
    with pytest.raises(ConfigError, match=r"^The weights file x does not exist\.$"):
        run_stage(runner, Unopenable(), dataset, workers=1)


def test_a_single_call_runs_in_a_worker(runner: Runner):
    assert run_once(runner, os.getpid) != os.getpid()


def test_scores_and_captions_of_ray_are_those_of_this_machine_alone(curated, small_web, tmp_path):
    leave = shutil.ignore_patterns("captions", "scores", ".scratch")
    shutil.copytree(curated.directory, tmp_path / "data", ignore=leave)
    there = Dataset.open(tmp_path / "data")
    shutil.copytree(
        curated.directory / "tables/captions/alt", there.directory / "tables/captions/alt"
    )
    scored = on_top_of_stored(there.directory, None, {"runner": "auto"})
    assert score(there.directory, scored).stages[0].shards_done == len(there.shards())
    settings = recaption_settings(small_web.settings)
    recaption(there.directory, settings.model_copy(update={"runner": "auto", "kinds": ("short",)}))
    for shard in there.shards():
        ours, theirs = (each.read_table("scores", shard) for each in (curated, there))
        assert ours.equals(theirs)
    short = [captions(each).filter(pc.field("kind") == "short") for each in (curated, there)]
    for name in short[0].column_names:
        ours, theirs = (table.column(name) for table in short)
        if pa.types.is_floating(ours.type):  # batches of another size round cosines differently
            np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), atol=2e-4)
        else:
            assert ours.equals(theirs), name


def captions(dataset: Dataset) -> pa.Table:
    """What the captioner wrote, without what tells of the run itself."""
    (source,) = [name for name in dataset.caption_sources() if name != "alt"]
    shards = [dataset.read_table("captions", shard, source) for shard in dataset.shards()]
    rows = pa.concat_tables(shards).drop_columns(list(CAPTIONS_VOLATILE))
    return rows.sort_by([("key", "ascending"), ("kind", "ascending")])


def test_a_training_run_goes_through_an_actor(curated, tmp_path):
    settings = TrainCommandSettings(
        selection="clean", model="tiny-test", steps=3, captions={"descriptive": 1.0}, cpus=1
    )
    assert train(curated.directory, tmp_path / "run", settings).steps == 3
    assert not list(tmp_path.glob(".*.progress"))


@pytest.mark.faults
def test_two_processes_train_one_model_through_ray_train(curated, tmp_path):
    settings = TrainCommandSettings(
        selection="clean",
        model="tiny-test",
        steps=3,
        captions={"descriptive": 1.0},
        cpus=1,
        processes=2,
        allow_unknown_words=True,
    )
    assert train(curated.directory, tmp_path / "two", settings).steps == 3
    alone = settings.model_copy(update={"processes": 1, "runner": "local"})
    train(curated.directory, tmp_path / "one", alone)
    receipts = [pq.read_table(tmp_path / name / "receipt.parquet") for name in ("one", "two")]
    assert receipts[0].equals(receipts[1])
