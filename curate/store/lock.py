"""One writer at a time: a lock on what a command writes, and a note of who holds it.

    DIR/.locks/NAME        host, process, since when, command; there as long as somebody holds it

NAME says what is written, so that commands which write different things may run side by side:

    samples, scores, duplicates      of a dataset
    search                           the index of `caplab search`, while it is built
    captions+SOURCE                  captions by one captioner
    selections+NAME, references+NAME
    run                              a whole run or export directory

The lock is the kernel's (flock), which drops it with the process, however that ends: after kill -9
or a power cut nothing has to be tidied, and a process id that is in use again deceives nobody. Two
that start at the same instant are told apart by it as well. Where machines share a disk without
sharing such locks, the note is touched every half a minute, and a note of another machine counts
until it was left alone for three.

Readers take no lock: files appear whole or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curate.base.errors import DatasetError
from curate.base.files import remove_leftovers

FOLDER = ".locks"
RUN = "run"
TOUCHED_EVERY = 30.0
"""Seconds."""
GONE_AFTER = 180.0
"""Seconds without a touch after which a holder on another machine counts as gone."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OURS = ("caplab", "cli.py")
_WAIT_FOR_NOTE = 1.0  # seconds between a lock and its note, at most

logger = logging.getLogger(__name__)


@contextmanager
def hold(directory: Path | str, names: Sequence[str] = (RUN,)) -> Iterator[None]:
    """Hold the locks `names` of `directory`; it is made if it is not there.

    A directory that was made for the lock and is still empty afterwards is removed again.

    Raises:
        DatasetError: somebody else holds one of them (the sentence names host, process and since
            when), or nothing can be written there.
    """
    directory = Path(directory).absolute()
    with ExitStack() as held:
        try:
            held.callback(_remove_if_empty, _make(directory / FOLDER))
            handles = [
                held.enter_context(_one(directory, name)) for name in sorted(dict.fromkeys(names))
            ]
        except OSError as error:
            raise DatasetError(
                f"{directory} cannot be written to ({error.strerror or error})."
            ) from error
        ended = threading.Event()
        toucher = threading.Thread(target=_touch, args=(handles, ended), daemon=True)
        toucher.start()
        held.callback(toucher.join)
        held.callback(ended.set)
        yield


@contextmanager
def writing(directory: Path | str, *names: str) -> Iterator[None]:
    """`hold` for a directory that is known to be ours: what dead processes left half-written goes.

    Where it is not known yet, `claim_directory` does that.
    """
    with hold(directory, names):
        remove_leftovers(Path(directory), below=True)
        yield


@contextmanager
def _one(directory: Path, name: str) -> Iterator[int]:
    path = directory / FOLDER / name.replace("/", "+")
    handle = _locked(path, directory, name)
    try:
        _refuse_foreign(path, handle, directory, name)
    except DatasetError:
        os.close(handle)
        raise
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_note()).encode(), 0)
        yield handle
    finally:
        path.unlink(missing_ok=True)  # before the lock goes: the next holder makes its own
        os.close(handle)


def _locked(path: Path, directory: Path, name: str) -> int:
    """An open and locked file at `path`."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # a holder that went removed the empty folder
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note = _wait_for_note(handle)
            os.close(handle)
            raise DatasetError(_sentence(directory, name, note)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            logger.warning(
                "%s lies on a disk without locks: take care that no second run writes there.",
                directory,
            )
            return handle
        # The holder before may have removed the file between our opening and our locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


def _refuse_foreign(path: Path, handle: int, directory: Path, name: str) -> None:
    """Raise where the note is of another machine and was touched a short while ago.

    A note of this machine is of a process that ended without removing it: the lock was free.
    """
    note = _read(handle)
    if not note or note.get("boot") == _boot() or note.get("host") == platform.node():
        return
    touched = os.fstat(handle).st_mtime_ns
    os.utime(handle)  # by the clock that made `touched`
    seconds = (os.fstat(handle).st_mtime_ns - touched) / 1e9
    if seconds < GONE_AFTER:
        os.utime(handle, ns=(touched, touched))
        raise DatasetError(
            f"{_sentence(directory, name, note)} It was heard of {seconds:.0f} seconds ago; if it "
            f"is gone, try again in {GONE_AFTER / 60:.0f} minutes or delete {path}."
        )


def _sentence(directory: Path, name: str, note: dict[str, Any]) -> str:
    what = directory if name == RUN else f"{directory} ({name.replace('+', '/')})"
    return (
        f"{what} is being written by another run: {note.get('command', 'a command')}, process "
        f"{note.get('process', '?')} on host {note.get('host', '?')}, since "
        f"{note.get('since', '?')}; wait until it ends, or stop it."
    )


def _note() -> dict[str, Any]:
    program = Path(sys.argv[0]).name
    # The command's name and no more: arguments may hold what is nobody's business.
    command = " ".join(["caplab", *sys.argv[1:2]]) if program in _OURS else program
    return {
        "host": platform.node(),
        "process": os.getpid(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "command": command,
        "boot": _boot(),
    }


def _boot() -> str:
    """What tells this running machine from all others, and from itself before its last start."""
    try:
        return _BOOT.read_text().strip()
    except OSError:  # not Linux
        return platform.node()


def _read(handle: int) -> dict[str, Any]:
    try:
        note = json.loads(os.pread(handle, 1 << 16, 0))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _wait_for_note(handle: int) -> dict[str, Any]:
    """The note of the holder, who may have locked the file a moment ago and not written it yet."""
    until = time.monotonic() + _WAIT_FOR_NOTE
    while not (note := _read(handle)) and time.monotonic() < until:
        time.sleep(0.02)
    return note


def _touch(handles: Sequence[int], ended: threading.Event) -> None:
    while not ended.wait(TOUCHED_EVERY):
        for handle in handles:
            with suppress(OSError):  # the disk is away for a while, which the run will see itself
                os.utime(handle)


def _make(folder: Path) -> list[Path]:
    """Make a folder; the folders that were made, innermost first."""
    made = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        made.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    return made or [folder]


def _remove_if_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
