"""Where an input lies: local paths, s3://, gs:// and every scheme that fsspec knows.

Arrow's own file systems serve local paths, S3 (and whatever speaks its protocol) and Google Cloud
Storage; other schemes go through fsspec. Credentials come from where those libraries look for
them. For S3: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL names another server (MinIO, Ceph, moto),
AWS_REGION or AWS_DEFAULT_REGION the region, `s3://anonymous@BUCKET/...` reads a public bucket
without credentials. For GCS: STORAGE_EMULATOR_HOST, and `gs://anonymous@BUCKET/...`.
"""

from __future__ import annotations

import fnmatch
import io
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from curate.base.errors import ConfigError

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.\-]+)://")
_PATTERN = re.compile(r"[*?\[{]")
_REMOTE_BUFFER = 4 << 20  # bytes a request to a remote store
# Packages that fsspec asks for, by scheme, so that the sentence can name them.
_PACKAGES = {
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "ssh": "paramiko",
    "sftp": "paramiko",
    "oss": "ossfs",
    "http": "aiohttp",
    "https": "aiohttp",
}


@dataclass(frozen=True)
class Store:
    """A file system and the path inside it of an input's root folder. Travels to workers."""

    scheme: str  # "" for local paths, "s3", "gs", ...
    root: str  # folder, without a slash at its end; paths below are relative to it

    def open(self, path: str) -> IO[bytes]:
        """A seekable stream of one file below the root.

        Raises:
            OSError: it is missing or unreadable.
        """
        if not self.scheme:
            return open(os.path.join(self.root, path), "rb")
        opened = _file_system(self.scheme).open_input_file(self._inside(path))
        return io.BufferedReader(_Remote(opened), _REMOTE_BUFFER)

    def arrow_file(self, path: str) -> Any:
        """The same for Arrow's readers."""
        if not self.scheme:
            return os.path.join(self.root, path)
        return _file_system(self.scheme).open_input_file(self._inside(path))

    def state(self, path: str) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds (0 where unknown)."""
        if not self.scheme:
            found = os.stat(os.path.join(self.root, path))
            return found.st_size, found.st_mtime_ns
        info = _file_system(self.scheme).get_file_info(self._inside(path))
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(path)
        return int(info.size or 0), int(info.mtime_ns or 0)

    def walk(self, hidden: bool = False) -> Iterator[str]:
        """Relative paths of all files below the root, sorted folder by folder.

        Local folders are read one at a time; memory is the largest single folder. A remote store
        is listed in one go. Hidden files and folders are left out unless `hidden`.
        """
        if not self.scheme:
            yield from _walk_local(self.root, "", (), hidden)
            return
        selector = fs.FileSelector(self.root, recursive=True)
        for info in sorted(_file_system(self.scheme).get_file_info(selector), key=_folder_first):
            relative = info.path[len(self.root) :].lstrip("/")
            told = hidden or not any(part.startswith(".") for part in relative.split("/"))
            if info.type == fs.FileType.File and told:
                yield relative

    def show(self, path: str = "") -> str:
        """The address of a file below the root, as a person would write it."""
        inside = self._inside(path) if path else self.root
        own = self.scheme in ("", "http", "https")  # these paths are whole already
        return inside if own else f"{self.scheme}://{inside}"

    def _inside(self, path: str) -> str:
        return f"{self.root}/{path}" if self.root or not self.scheme else path


@dataclass(frozen=True)
class Found:
    """What an input argument names: a store, and its files if they were named one by one."""

    store: Store
    files: tuple[str, ...] | None  # relative paths, sorted; None for a whole folder


def locate(given: str) -> Found:
    """Resolve a path, a folder, a glob (`*`, `?`, `[..]`, `**`) or braces (`{000..099}`).

    What exists as it stands is taken as it stands, the whole path or the folders at its beginning:
    in `data/[v2]/*.jsonl` the folder is `[v2]` where there is one.

    Raises:
        ConfigError: nothing is there, or the scheme's package is missing.
    """
    scheme, path = _split(given)
    try:
        if not _PATTERN.search(path) or _exists(scheme, path):
            return _one(scheme, path, given)
        folder, rest = _beginning(scheme, path if scheme else str(Path(path).absolute()))
        if "{" in rest:
            return _several(scheme, [folder + one for one in _braces(rest, given)], given)
        return _globbed(scheme, folder, rest, given)
    except (OSError, ValueError) as error:
        raise ConfigError(f"The input {given} cannot be reached: {_first_line(error)}") from error


def _one(scheme: str, path: str, given: str) -> Found:
    if _is_folder(scheme, path):
        root = path.rstrip("/") or "/"
        return Found(Store(scheme, root if scheme else str(Path(root).absolute())), None)
    return _several(scheme, [path], given)


def _several(scheme: str, paths: list[str], given: str) -> Found:
    if not scheme:
        paths = [str(Path(path).absolute()) for path in paths]
    missing = [path for path in paths if not _exists(scheme, path)]
    if missing:
        shown = f" ({missing[0]} is missing)" if len(paths) > 1 else ""
        raise ConfigError(f"The input {given} does not exist{shown}.")
    root = _shared_folder(paths)
    files = tuple(path[len(root) :].lstrip("/") for path in paths)
    return Found(Store(scheme, root), files)


def _shared_folder(paths: list[str]) -> str:
    """The deepest folder that holds all paths; a URL's double slash stays as it is."""
    shared = paths[0].split("/")[:-1]
    for path in paths[1:]:
        parts = path.split("/")[:-1]
        same = itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(shared, parts, strict=False)
        )
        shared = [part for part, _ in same]
    return "/".join(shared)


def _beginning(scheme: str, path: str) -> tuple[str, str]:
    """The path cut before the first name that is a pattern and does not exist as it stands."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if _PATTERN.search(part) and not _exists(scheme, "/".join(parts[: number + 1])):
            break
    return "".join(f"{part}/" for part in parts[:number]), "/".join(parts[number:])


def _globbed(scheme: str, folder: str, pattern: str, given: str) -> Found:
    store = Store(scheme, folder.rstrip("/") or ("" if scheme else "/"))
    if not _is_folder(scheme, store.root):
        raise ConfigError(f"The input {given} does not exist.")
    wanted = pattern.split("/")
    files = tuple(sorted(file for file in store.walk() if _matches(file.split("/"), wanted)))
    if not files:
        raise ConfigError(f"The input {given} does not exist: no file has such a name.")
    return Found(store, files)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return (
        bool(parts)
        and fnmatch.fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def _braces(path: str, given: str) -> list[str]:
    import braceexpand

    try:
        return list(braceexpand.braceexpand(path))
    except ValueError as error:
        raise ConfigError(f"The braces of the input {given} do not match.") from error


# ---- file systems -----------------------------------------------------------------------------


def _split(given: str) -> tuple[str, str]:
    """Scheme and the path inside its file system."""
    match = _SCHEME.match(given)
    if match is None:
        return "", os.path.expanduser(given)
    scheme = match[1].lower()
    if scheme == "file":
        local = "/" + given[match.end() :].partition("/")[2]  # without the host, if there is one
        return "", local if os.path.exists(local) else unquote(local)
    if scheme in ("s3a", "s3n"):
        scheme = "s3"
    if scheme == "gcs":
        scheme = "gs"
    rest = given[match.end() :]
    if scheme in ("s3", "gs") and rest.startswith("anonymous@"):
        return f"{scheme}+anonymous", rest.removeprefix("anonymous@")
    # fsspec's HTTP file system wants whole URLs as paths.
    return scheme, given if scheme in ("http", "https") else rest


@cache
def _file_system(scheme: str) -> Any:
    bare, _, anonymous = scheme.partition("+")
    if bare == "s3":
        return _s3(bool(anonymous))
    if bare == "gs":
        return fs.GcsFileSystem(anonymous=bool(anonymous))
    return _through_fsspec(bare)


def _s3(anonymous: bool) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"anonymous": anonymous}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
        # Without a region Arrow asks AWS for the bucket's, which another server need not know.
        options.setdefault("region", "us-east-1")
    return fs.S3FileSystem(**options)


def _through_fsspec(scheme: str) -> Any:
    try:
        import fsspec

        file_system = fsspec.filesystem(scheme)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        hint = f"`uv pip install {package}`" if package else "the package that it names"
        raise ConfigError(
            f"Inputs of {scheme}:// need a package that is not installed "
            f"({_first_line(error)}); install {hint}."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{scheme}:// is no kind of storage that Arrow or fsspec knows; give a local path, "
            f"s3://, gs:// or a scheme of fsspec."
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(file_system))


def _exists(scheme: str, path: str) -> bool:
    if not scheme:
        return os.path.exists(path)
    return bool(_file_system(scheme).get_file_info(path).type != fs.FileType.NotFound)


def _is_folder(scheme: str, path: str) -> bool:
    if not scheme:
        return os.path.isdir(path)
    return bool(_file_system(scheme).get_file_info(path).type == fs.FileType.Directory)


def _walk_local(root: str, folder: str, above: tuple[str, ...], hidden: bool) -> Iterator[str]:
    here = os.path.realpath(os.path.join(root, folder))
    if here in above:  # a link that leads back up
        return
    with os.scandir(here) as entries:
        # A broken link is a file that cannot be read; a pipe or a socket is no file at all.
        inside = sorted(
            (entry.name, entry.is_dir())
            for entry in entries
            if entry.is_dir() or entry.is_file() or entry.is_symlink()
        )
    told = [one for one in inside if hidden or not one[0].startswith(".")]
    yield from (os.path.join(folder, name) for name, is_folder in told if not is_folder)
    for name, is_folder in told:
        if is_folder:
            yield from _walk_local(root, os.path.join(folder, name), (*above, here), hidden)


def _folder_first(info: Any) -> tuple[Any, ...]:
    """The order of `_walk_local`: the files of a folder before its folders, each by name."""
    *folders, name = info.path.split("/")
    return (*((1, folder) for folder in folders), (0, name))


class _Remote(io.RawIOBase):
    """Arrow's random access file as Python's raw file."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._opened.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
