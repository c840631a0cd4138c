"""Photographs on disk: which files, and which of them no training of ours ever saw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from curate.base.errors import ConfigError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
HELD_OUT = 0.4
"""Share of the files that training leaves alone."""


def photograph_files(folders: list[Path], suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """All pictures below the folders, by name; a folder called "originals" only doubles others.

    Raises:
        ConfigError: a folder is missing or there is no picture in it.
    """
    files: list[Path] = []
    for folder in folders:
        found = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in suffixes and "originals" not in path.relative_to(folder).parts
        )
        if not found:
            raise ConfigError(f"{folder} holds no pictures ({', '.join(sorted(suffixes))}).")
        files += found
    return files


def is_held_out(path: Path) -> bool:
    """Whether training leaves this file alone: decided by the hash of its name, once for all."""
    first = hashlib.sha256(path.name.encode()).digest()[:4]
    return int.from_bytes(first, "big") < HELD_OUT * 2**32
