"""Where what can be made anew is kept: with the dataset, or elsewhere if that cannot be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from curate.base.errors import DatasetError
from curate.base.files import fingerprint


def search_folder(directory: Path) -> Path:
    """DIR/search, or a folder `elsewhere` where DIR cannot be written.

    Raises:
        DatasetError: as of `elsewhere`.
    """
    own = directory / "search"
    nearest = own if own.exists() else directory
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return own if writable else elsewhere(directory, "search")


def elsewhere(directory: Path, name: str) -> Path:
    """A folder among temporary files for what belongs into DIR/NAME; the same for every process.

    Raises:
        DatasetError: somebody else made it.
    """
    mark = fingerprint(str(directory.absolute()))
    place = Path(tempfile.gettempdir()) / f"caplab-{name}-{os.getuid()}-{mark}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.getuid():
        raise DatasetError(f"{place} belongs to somebody else; set TMPDIR to a folder of yours.")
    return place
