"""Stages in processes of this machine: every shard once, two tries each, no Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, StageError
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.bench.common.children import tied
from pipelines.runners.local import Local
from pipelines.runners.shards import run_stage


class Marks(Stage):
    """Writes a file a shard with the worker's process id; its mood is the shard's name."""

    name = "marks"
    adds = ("samples",)

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        return (dataset.directory / f"{shard}.done").exists()

    def open(self) -> None:
        print("stages may print")

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        tries = dataset.directory / f"{shard}.tries"
        with open(tries, "a") as file:
            file.write("x")
        once = len(tries.read_text()) == 1
        mood = (dataset.directory / f"{shard}.mood").read_text()
        if mood == "wrong setting":
            raise ConfigError("The setting is wrong; change it.")
        if mood == "raises" or (mood == "raises once" and once):
            raise ValueError("no luck")
        if mood == "dies once" and once:
            os.kill(os.getpid(), signal.SIGKILL)
        (dataset.directory / f"{shard}.done").write_text(f"{os.getpid()} {'ray' in sys.modules}")
        return {"stored": 2}


def dataset(folder: Path, *moods: str) -> Dataset:
    made = Dataset(folder)
    made.input_path("00000").parent.mkdir()
    for number, mood in enumerate(moods):
        pq.write_table(pa.table({"key": ["a", "b"]}), made.input_path(f"{number:05d}"))
        (folder / f"{number:05d}.mood").write_text(mood)
    return made


def tries(made: Dataset) -> list[int]:
    files = [made.directory / f"{shard}.tries" for shard in made.shards()]
    return [len(file.read_text()) if file.exists() else 0 for file in files]


def test_every_shard_runs_once_in_few_processes_that_know_no_ray(tmp_path):
    made = dataset(tmp_path, *["fine"] * 5)
    summary = run_stage(Local(), Marks(), made, 2)
    assert (summary.shards_done, summary.counts) == (5, {"stored": 10})
    assert tries(made) == [1] * 5
    said = {(made.directory / f"{shard}.done").read_text() for shard in made.shards()}
    assert len(said) <= 2
    assert all(text.endswith("False") and not text.startswith(f"{os.getpid()} ") for text in said)
    assert run_stage(Local(), Marks(), made, 2).shards_skipped == 5


def test_a_shard_whose_worker_raises_or_dies_is_tried_once_more(tmp_path):
    made = dataset(tmp_path, "raises once", "dies once", "fine")
    assert run_stage(Local(), Marks(), made, 1).counts == {"stored": 6}
    assert tries(made) == [2, 2, 1]


def test_a_fault_that_repeats_is_named_and_the_other_shards_are_done(tmp_path):
    made = dataset(tmp_path, "raises", "fine", "fine")
    with pytest.raises(
        StageError, match=r"1 of 3 shards, first 00000: ValueError \(no luck\); its"
    ):
        run_stage(Local(), Marks(), made, 2)
    assert tries(made) == [2, 1, 1]


def test_a_worker_that_never_comes_up_is_told_and_nobody_waits_for_it(tmp_path, monkeypatch):
    made = dataset(tmp_path, "fine", "fine")
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/nowhere/python")
    with pytest.raises(StageError, match=r"2 of 2 shards, first 00000: its worker died"):
        run_stage(Local(), Marks(), made, 2)


def test_a_wrong_setting_stops_the_run_with_its_own_sentence(tmp_path):
    made = dataset(tmp_path, "wrong setting", "wrong setting")
    with pytest.raises(ConfigError, match=r"The setting is wrong; change it\."):
        run_stage(Local(), Marks(), made, 1)
    assert tries(made)[0] == 1


STAGE = """
import ctypes, os, time
from curate.store.stage import Stage

class Sleeps(Stage):
    name = "sleeps"
    adds = ("samples",)

    def run(self, dataset, shard):
        (dataset.directory / "worker").write_text(f"{os.getpid()}\\n")
        SLEEP(60)
"""
# Without the guard that `spawn` asks scripts for.
DRIVER = """
import sys
from curate.store.dataset import Dataset
from pipelines.runners.local import Local
from pipelines.runners.shards import run_stage
from sleeps import Sleeps

run_stage(Local(), Sleeps(), Dataset(sys.argv[1]), 1)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_driver_that_is_killed_or_interrupted(tmp_path, number):
    made = dataset(tmp_path, "fine")
    # As a driver's call that hangs: with the interpreter's lock, so that no thread of it hears.
    hangs = number == signal.SIGKILL and sys.platform == "linux"
    sleep = "ctypes.PyDLL(None).sleep" if hangs else "time.sleep"
    (tmp_path / "sleeps.py").write_text(STAGE.replace("SLEEP", sleep))
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen(
        tied([sys.executable, tmp_path / "driver.py", made.directory]), stderr=subprocess.DEVNULL
    )
    worker = tmp_path / "worker"
    deadline = time.monotonic() + 60
    while not (worker.exists() and worker.read_text().endswith("\n")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process = psutil.Process(int(worker.read_text()))
    driver.send_signal(number)
    assert driver.wait(30) != 0
    _, alive = psutil.wait_procs([process], timeout=10)
    assert not alive
