"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from curate.errors import DatasetError

_PATTERN = re.compile(r"[*?\[\]\\]")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed and renamed into place.

    The temporary name starts with a dot, so a glob such as `*.parquet` never sees a half-written
    file, and carries the process id, so two writers never share one. After an error the temporary
    file is removed and `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        # The rename itself must survive a power cut, so the directory entry is flushed as well.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


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
