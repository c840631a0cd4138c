"""Weights by name, URL or hub id: fetched once, checked, converted to safetensors, cached.

A source is one of

    laion-nsfw-l14                                  a published name (see scorers.published)
    laion-nsfw-h14#sha256=HEX                       one whose hash nobody here could take
    https://HOST/FILE#sha256=HEX                    a URL; the hash is not optional
    hf-hub:ORG/NAME/FILE, hf-hub:ORG/NAME@REVISION/FILE   a file of a hub repository
    /path/to/FILE                                   a local file

and ends as a local .safetensors file. Converted files lie under CAPLAB_CACHE (by default
~/.cache/caption-lab), named after the hash of their source; each appears whole or not at all.

A pickle can run code while it loads. It is converted only if the user named it (`allow_pickle`: its
file name or its sha256), even a published one with a known hash, and even then only tensors are
unpickled. Once it is converted nobody unpickles it again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, sha256_file
from curate.base.weights import SAFE_SUFFIX

HUB = "hf-hub:"
TIMEOUT_SECONDS = 60
MAX_BYTES = 16 << 30
_PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl"})

Convert = Callable[[Path, Path, bool], object]
"""(source file, target .safetensors, whether a pickle is allowed)."""


@dataclass(frozen=True)
class Fetched:
    """A file that is here now, checked against its hash where one is known."""

    path: Path
    name: str
    sha256: str


def cache_directory() -> Path:
    """Where converted weights lie: CAPLAB_CACHE, or ~/.cache/caption-lab."""
    given = os.environ.get("CAPLAB_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "caption-lab"


def converted(
    source: str,
    convert: Convert,
    *,
    mark: str,
    sha256: str | None = None,
    allow_pickle: Collection[str] = (),
) -> Path:
    """The safetensors file of `source`, out of the cache or fetched and converted now.

    Args:
        source: a URL, a hub file or a local path.
        convert: writes the target atomically.
        mark: what the conversion makes of the file; part of the cached file's name.
        sha256: the expected hash; needed for a URL unless the source itself ends in it.
        allow_pickle: file names or sha256 of pickles that the user trusts.

    Raises:
        ConfigError: not there, not the file of this hash, a pickle that was not named, or a file
            that does not convert. The cache is untouched then.
    """
    source, sha256 = split_hash(source, sha256)
    if sha256 is not None and (cached := _cached(sha256, mark)).is_file():
        return cached
    with tempfile.TemporaryDirectory(prefix="caplab-weights-") as scratch:
        file = fetch(source, sha256, Path(scratch))
        target = _cached(file.sha256, mark)
        if not target.is_file():
            trusted = check_pickle(file.path, file.name, file.sha256, allow_pickle)
            convert(file.path, target, trusted)
    return target


def split_hash(source: str, sha256: str | None = None) -> tuple[str, str | None]:
    """(`source` without its `#sha256=HEX`, the hash)."""
    source, mark, given = source.partition("#sha256=")
    if mark and (len(given) != 64 or set(given.lower()) - set("0123456789abcdef")):
        raise ConfigError(f"{given!r} is no sha256; it has 64 hex digits.")
    return source, given.lower() if mark else sha256


def fetch(source: str, sha256: str | None, scratch: Path) -> Fetched:
    """Bring `source` here and check its hash; files of a URL land in `scratch`.

    Raises:
        ConfigError: one sentence for whatever is wrong.
    """
    if source.startswith(("http://", "https://")):
        if sha256 is None:
            raise ConfigError(
                f"{source} needs the hash of the file that you expect; write {source}#sha256=HEX."
            )
        path = scratch / (Path(unquote(urlsplit(source).path)).name or "weights")
        _download(source, path)
    elif source.startswith(HUB):
        path = hub_file(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"The weights file {source} does not exist.")
    found = sha256_file(path)
    if sha256 is not None and found != sha256:
        raise ConfigError(
            f"{source} is not the expected file: its sha256 is {found}, not {sha256}; "
            f"nothing of it was kept."
        )
    return Fetched(path, path.name, found)


def check_pickle(path: Path, name: str, sha256: str, allowed: Collection[str]) -> bool:
    """Whether the file is a pickle that the user named; ConfigError for one that was not."""
    if path.suffix not in _PICKLES:
        return False
    if name not in allowed and sha256 not in allowed:
        raise ConfigError(
            f"{name} (sha256 {sha256}) is a pickle, which can run code when it is loaded; if you "
            f"trust it, say --allow-pickle {name}: it is then converted once."
        )
    return True


def parse_hub(source: str) -> tuple[str, str | None, str]:
    """`hf-hub:ORG/NAME@REVISION/FILE` -> ("ORG/NAME", "REVISION" or None, "FILE" or "")."""
    organisation, _, rest = source.removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    if not organisation or not name:
        raise ConfigError(f"{source!r} is no hub id; it has the form {HUB}ORG/NAME.")
    return f"{organisation}/{name}", revision or None, file


def hub_file(source: str) -> Path:
    """One file of a hub repository, in the hub's own cache.

    Raises:
        ConfigError: no such repository, revision or file, or no connection and nothing cached.
    """
    from huggingface_hub import hf_hub_download

    repository, revision, file = parse_hub(source)
    if not file:
        raise ConfigError(f"{source!r} names no file; write {HUB}{repository}/FILE.")
    try:
        return Path(hf_hub_download(repository, file, revision=revision, endpoint=_endpoint()))
    except Exception as error:
        raise hub_error(source, repository, revision, error) from error


def hub_folder(source: str, patterns: list[str]) -> Path:
    """The files of a hub repository that match `patterns`, as a folder in the hub's cache.

    Raises:
        ConfigError: as `hub_file`.
    """
    from huggingface_hub import snapshot_download

    repository, revision, _ = parse_hub(source)
    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=patterns, endpoint=_endpoint()
            )
        )
    except Exception as error:
        raise hub_error(source, repository, revision, error) from error


def hub_error(source: str, repository: str, revision: str | None, error: Exception) -> ConfigError:
    """The hub's error as one sentence."""
    kind = type(error).__name__
    if kind == "RevisionNotFoundError":
        return ConfigError(f"{repository} on the hub has no revision {revision!r}.")
    if kind in ("EntryNotFoundError", "RemoteEntryNotFoundError", "LocalEntryNotFoundError"):
        if kind != "LocalEntryNotFoundError":
            return ConfigError(f"{repository} on the hub has no such file as {source!r} names.")
        return ConfigError(
            f"{source} is not in the hub's cache and the hub cannot be reached; "
            f"check the connection or HF_ENDPOINT."
        )
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "HFValidationError"):
        return ConfigError(
            f"The hub has no repository {repository!r} that you may read; check the name, "
            f"or log in if it is gated."
        )
    words = str(error).strip().splitlines()
    return ConfigError(f"{source} cannot be fetched from the hub ({words[0] if words else kind}).")


def keep_safetensors(source: Path, target: Path, _: bool) -> None:
    """A conversion that only keeps: for files that are safetensors already."""
    if source.suffix != SAFE_SUFFIX:
        raise ConfigError(f"{source.name} is no {SAFE_SUFFIX} file.")
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _endpoint() -> str | None:
    # The hub's client reads this once, at its import; a mirror may be named later.
    return os.environ.get("HF_ENDPOINT")


def _cached(sha256: str, mark: str) -> Path:
    return cache_directory() / "weights" / f"{mark}-{sha256[:32]}{SAFE_SUFFIX}"


def _download(url: str, path: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "caption-lab"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            size = 0
            with open(path, "wb") as out:
                while block := answer.read(1 << 20):
                    size += len(block)
                    if size > MAX_BYTES:
                        raise ConfigError(f"{url} has more than {MAX_BYTES >> 30} GiB.")
                    out.write(block)
    except urllib.error.HTTPError as error:
        raise ConfigError(f"{url} cannot be fetched (HTTP {error.code}).") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(f"{url} cannot be fetched ({reason}).") from error
