"""The last line of defence: one sentence, an exit status, and a file for what nobody expected."""

import errno
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import StageError
from curate.base.files import write_text
from pipelines.terminal import failures
from pipelines.terminal.failures import (
    Terminated,
    end_on_signals,
    keep_traceback,
    known,
    one_sentence,
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tracebacks go."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "caption-lab" / "errors"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ended(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit status and stderr of a command that raises `error`."""
    with pytest.raises(SystemExit) as end, one_sentence():
        raise error
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device: /data/a.parquet; make room"),
        (errno.EROFS, "Read-only file system: /data/a.parquet; name a place"),
        (errno.EACCES, "Permission denied: /data/a.parquet; give this user"),
        (errno.EMFILE, "Too many open files: /data/a.parquet; raise the limit"),
        (errno.ENAMETOOLONG, "File name too long: /data/a.parquet; choose a shorter path"),
        (errno.ENOTDIR, "Not a directory: /data/a.parquet; a part of the path is a file"),
        (errno.EISDIR, "Is a directory: /data/a.parquet; that is a directory"),
    ],
)
def test_what_a_person_can_mend_is_said_with_its_path_and_remedy(
    number: int, words: str, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    status, said = ended(OSError(number, os.strerror(number), "/data/a.parquet"), capsys)
    assert status == 1
    assert said.startswith(f"caplab: {words}")
    assert said.count("\n") == 1
    assert not state.exists()


def test_a_disk_that_is_full_in_the_middle_of_a_table_is_one_sentence(
    small_files: None, tmp_path: Path
) -> None:
    table = pa.table({"a": list(range(100_000))})
    with pytest.raises(OSError) as full:
        pq.write_table(table, tmp_path / "a.parquet")
    assert "File too large; raise the limit on file sizes" in (known(full.value) or "")
    with pytest.raises(OSError) as full:
        write_text(tmp_path / "a.txt", "a" * 9999)
    assert "File too large; raise" in (known(full.value) or "")
    assert not list(tmp_path.glob("*.txt")), "a file appears whole or not at all"


def test_memory_that_ends_is_no_traceback_also_as_the_cause_of_something_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "out of memory" in ended(MemoryError(), capsys)[1]
    wrapped = RuntimeError("a batch failed")
    wrapped.__cause__ = MemoryError()
    assert "out of memory" in ended(wrapped, capsys)[1]


def test_what_nobody_expected_names_the_file_with_its_traceback(
    capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    status, said = ended(ZeroDivisionError("by\nzero"), capsys)
    (file,) = state.iterdir()
    assert status == 70
    assert said == (f"caplab: an unexpected ZeroDivisionError (by); its traceback is in {file}.\n")
    assert "Traceback" in file.read_text()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_tracebacks_are_bounded_in_number_and_size(state: Path) -> None:
    state.mkdir(parents=True)
    for number in range(30):
        (state / f"2020-{number:02}.txt").write_text("old")
    file = keep_traceback(ValueError("x" * 10_000_000))
    assert file is not None
    assert file.stat().st_size < 300_000
    assert len(list(state.iterdir())) == failures.KEPT_TRACEBACKS


def test_without_a_home_the_traceback_lies_with_temporary_files_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert (keep_traceback(ValueError()) or Path()).is_relative_to(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert "no place could be written" in ended(ValueError("x"), capsys)[1]


def test_known_errors_and_interruptions_keep_their_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(StageError("Two shards failed."), capsys) == (4, "caplab: Two shards failed.\n")
    assert ended(KeyboardInterrupt(), capsys)[0] == 130


@contextmanager
def noting(number: signal.Signals, cleaned: list[object]) -> Iterator[None]:
    """Note, as what cleans up, what the next such signal would do."""
    try:
        yield
    finally:
        cleaned.append(signal.getsignal(number))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_unwinds_the_command_and_a_second_one_is_not_held_up(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    cleaned: list[object] = []
    try:
        end_on_signals()
        with pytest.raises(SystemExit) as end, one_sentence(), noting(number, cleaned):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
    assert end.value.code == status
    assert cleaned == [signal.SIG_DFL]
    assert f"ended by {number.name}" in capsys.readouterr().err


def test_a_signal_within_compiled_code_is_told_as_the_signal(
    capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    error = SystemError("<cyfunction CoreWorker.wait> returned a result with an exception set")
    error.__cause__ = Terminated(signal.SIGTERM)
    told = StageError("Ray broke down.")
    told.__cause__ = error
    said = "caplab: ended by SIGTERM; the same command continues.\n"
    assert ended(error, capsys) == ended(told, capsys) == (143, said)
    assert not state.exists()


def test_a_reader_that_left_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    receiver, sender = os.pipe()
    os.close(receiver)
    kept = os.dup(1)
    os.dup2(sender, 1)
    try:
        with pytest.raises(SystemExit) as end, one_sentence():
            os.write(1, b"a line")
    finally:
        os.dup2(kept, 1)
        for number in (kept, sender):
            os.close(number)
    assert end.value.code == 141
    assert capfd.readouterr().err == ""
