"""Files that appear whole or not at all, and their hashes.

A file is written under a temporary name first, `.NAME.HOST.PROCESS.tmp`, which says who writes it;
so whoever finds one can tell whether its writer is gone (`remove_leftovers`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from curate.base.errors import DatasetError

_PATTERN = re.compile(r"[*?\[\]\\]")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed and renamed into place.

    The temporary name starts with a dot, so a glob such as `*.parquet` never sees a half-written
    file, and carries host and process, so two writers never share one. After an error the temporary
    file is removed and `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        # The rename itself must survive a power cut, so the directory entry is flushed as well.
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Have the renames in a folder survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain_path(path: Path | str) -> Path:
    r"""`path`, absolute and under a name that DuckDB takes for itself and nothing else.

    DuckDB reads `*`, `?` and `[` as patterns in every path, `?` in a database's name as the start
    of options, and a backslash as a slash; a backslash cannot be escaped at all, and an escaped
    pattern lists the folder above once a file. So the part of the path up to the last such name is
    reached through a symbolic link in the temporary folder, one a folder, which stays for the next
    process. A path without such names comes back as it is.

    Raises:
        DatasetError: somebody else made the folder of links.
    """
    path = Path(path).absolute()
    odd = [number for number, name in enumerate(path.parts, 1) if _PATTERN.search(name)]
    if not odd:
        return path
    return _link_to(Path(*path.parts[: odd[-1]])).joinpath(*path.parts[odd[-1] :])


@cache
def _link_to(target: Path) -> Path:
    # A temporary folder with such a name of its own would help nobody.
    temporary = "/tmp" if _PATTERN.search(tempfile.gettempdir()) else tempfile.gettempdir()
    folder = Path(temporary, f"caplab-links-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DatasetError(f"{folder} belongs to somebody else; set TMPDIR to a folder of yours.")
    link = folder / hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
    if not link.is_symlink():  # another process may make the same one at this moment
        made = folder / f"{link.name}.{os.getpid()}"
        made.symlink_to(target)
        os.replace(made, link)
    return link


def temporary_path(path: Path) -> Path:
    """Where this process writes `path` until it is whole; file or folder."""
    return path.parent / f".{path.name}.{_HOST}.{os.getpid()}.tmp"


def leftovers(directory: Path, prefix: str = "", below: bool = False) -> Iterator[Path]:
    """Temporary files and folders in `directory` whose writing process is gone.

    A process of this machine is gone when no process has its id, or one that started after the
    file was last touched. What another machine wrote counts as left after an hour without a touch.
    Cost: one listing.

    Args:
        prefix: only of files whose name starts so.
        below: also in all folders below.
    """
    for parent, folders, files in os.walk(directory):
        for name in (*folders, *files):
            match = _TEMPORARY.fullmatch(name)
            path = Path(parent, name)
            if match and match["name"].startswith(prefix) and _is_left(path, match):
                yield path
        if not below:
            return
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]


def remove_leftovers(directory: Path, prefix: str = "", below: bool = False) -> int:
    """Remove the `leftovers`, and return how many there were."""
    found = list(leftovers(directory, prefix, below))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


_HOST = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
# Earlier versions wrote no host.
_TEMPORARY = re.compile(r"\.(?P<name>.+?)\.(?:(?P<host>[0-9a-f]{8})\.)?(?P<process>\d+)\.tmp")
_UNTOUCHED_SECONDS = 3600
_CLOCK_SECONDS = 60  # by which a file server's clock may differ


def _is_left(path: Path, match: re.Match[str]) -> bool:
    import psutil

    try:
        touched = path.lstat().st_mtime
    except FileNotFoundError:
        return False
    if match["host"] not in (_HOST, None):
        return time.time() - touched > _UNTOUCHED_SECONDS
    try:
        return psutil.Process(int(match["process"])).create_time() > touched + _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically, with sorted keys so that equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    write_text(path, text + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON.

    Raises:
        DatasetError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable as JSON ({error}).") from error


def read_record(path: Path | str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DatasetError: as `read_json`, or it is another kind of JSON.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise DatasetError(f"{path} is not the record that it should be: it holds no JSON object.")
    return record


def sha256_file(path: Path | str) -> str:
    """Hex sha256 of a file's bytes, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """16 hex digits of the sha256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
