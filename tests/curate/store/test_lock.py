"""Two runs on one directory: the second is told of the first, and a dead one holds nothing."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, leftovers, remove_leftovers
from curate.store import lock
from curate.store.dataset import Dataset
from curate.store.lock import hold

HOLDER = """
import sys, time
from curate.store.lock import hold
with hold(sys.argv[1], sys.argv[2:]):
    print("held", flush=True)
    time.sleep(60)
"""
STARTER = """
import sys, time
from curate.base.errors import DatasetError
from curate.store.lock import hold
while time.time() < float(sys.argv[2]):
    pass
try:
    with hold(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
except DatasetError as error:
    print(error, flush=True)
"""


def holder(directory: Path, *names: str) -> subprocess.Popen[str]:
    """Another process that holds locks until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), *names], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_the_second_run_is_told_host_process_and_since_when(tmp_path):
    process = holder(tmp_path / "data", "samples", "scores")
    expected = f"process {process.pid} on host {os.uname().nodename}, since 20"
    with pytest.raises(DatasetError) as refused, hold(tmp_path / "data", ["scores"]):
        pass
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    with hold(tmp_path / "data", ["captions/other"]):  # what nobody else writes
        pass
    end(process, signal.SIGINT)
    assert not (tmp_path / "data").exists()  # released, and made by the lock alone


def test_a_lock_whose_process_was_killed_is_taken_over(tmp_path):
    end(holder(tmp_path, "run"), signal.SIGKILL)
    left = tmp_path / lock.FOLDER / "run"
    assert left.exists()
    # Its process id may be in use again, by a process that knows nothing of the lock.
    left.write_text(json.dumps(json.loads(left.read_text()) | {"process": os.getpid()}))
    with hold(tmp_path):
        assert json.loads(left.read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_of_runs_that_start_at_the_same_instant_one_goes_on_and_the_others_name_it(tmp_path):
    at = str(time.time() + 1.0)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, str(tmp_path), at],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = {process.pid: process.stdout.readline() for process in crowd}
    for process in crowd:
        process.communicate("")
    held = [pid for pid, line in said.items() if line == "held\n"]
    assert len(held) == 1
    others = [line for pid, line in said.items() if pid not in held]
    assert all(f"process {held[0]} " in line for line in others)


def test_a_lock_is_released_by_an_error_and_by_ctrl_c(tmp_path):
    for error in (DatasetError("no"), KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)), hold(tmp_path):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_threads_of_one_process_shut_each_other_out_as_well(tmp_path):
    with hold(tmp_path), pytest.raises(DatasetError, match=f"process {os.getpid()}"), \
            hold(tmp_path):  # fmt: skip
        pass


def test_a_note_of_another_machine_counts_until_nobody_touched_it_for_a_while(tmp_path):
    (tmp_path / lock.FOLDER).mkdir()
    note = tmp_path / lock.FOLDER / "run"
    note.write_text(json.dumps({"host": "elsewhere", "process": 7, "boot": "x", "since": "noon"}))
    with pytest.raises(DatasetError, match=r"7 on host elsewhere, since noon.* delete "), \
            hold(tmp_path):  # fmt: skip
        pass
    old = time.time() - lock.GONE_AFTER - 1
    os.utime(note, (old, old))
    with hold(tmp_path):
        pass


def test_a_disk_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def none(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with hold(tmp_path):
        pass
    assert "without locks" in caplog.text


def test_a_folder_of_somebody_else_loses_nothing_to_us(tmp_path):
    (tmp_path / ".thesis.99999999.tmp").write_text("do not lose me")
    with pytest.raises(DatasetError, match="not a dataset of ours"), hold(tmp_path):
        Dataset.create(tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == [".thesis.99999999.tmp"]


def test_the_next_run_removes_what_a_dead_one_left_in_the_tables(tmp_path):
    dataset = Dataset.create(tmp_path / "data", {}, {})
    left = dataset.table_directory("samples") / ".00000.parquet.99999999.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    Dataset.create(tmp_path / "data", {}, {})
    assert not left.exists()


def test_where_nothing_can_be_written_one_sentence_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written to"), hold(tmp_path / "file"):
        pass


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = tmp_path / "tables" / "samples"
    with atomic_path(folder / "00000.parquet") as mine:
        mine.write_text("half")
        for name in (mine.name.replace(str(os.getpid()), str(dead.pid)), f".x.{dead.pid}.tmp"):
            (folder / name).write_text("half")
        (folder / f".folder.{dead.pid}.tmp").mkdir()
        (folder / f".folder.{dead.pid}.tmp" / "picture").write_text("half")
        reused = folder / f".y.{os.getpid()}.tmp"  # by a process that had our id before us
        reused.write_text("half")
        os.utime(reused, (1e9, 1e9))
        elsewhere = [folder / f".{name}.0000abcd.{dead.pid}.tmp" for name in ("new", "old")]
        for path in elsewhere:
            path.write_text("half")
        os.utime(elsewhere[1], (1e9, 1e9))
        (folder / "00001.parquet").write_text("whole")
        assert remove_leftovers(tmp_path) == 0  # not below
        assert remove_leftovers(tmp_path, below=True) == 5
        assert sorted(folder.iterdir()) == sorted([mine, elsewhere[0], folder / "00001.parquet"])
    assert list(leftovers(tmp_path, below=True)) == []
