"""How much memory a search may take, as a person says it, and how it is shared out.

A process that searches holds its libraries, a few numbers for every sample, and blocks of the
searches: tables of hashes, groups of clusters. The first two are what they are; the blocks get the
rest, and everything that does not fit in them waits on disk or is worked off in parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from curate.base.errors import ConfigError

LIBRARIES = 500 << 20
"""Resident bytes of a process that has loaded NumPy, faiss, Arrow, DuckDB and compiled code."""
LEAST_BLOCKS = 64 << 20
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """Bytes from "2GB", "500 MiB" or a plain number.

    Raises:
        ConfigError: it is none of those.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise ConfigError(f"{text!r} is no amount of memory; write it as 2GB or 500MB.")
    number, unit, binary = match.groups()
    return int(float(number) * (_BINARY if binary else _UNITS)[unit.upper()])


@dataclass(frozen=True)
class MemoryLimit:
    """A bound on the resident memory of a search, in bytes."""

    total: int

    def blocks(self, resident: int) -> int:
        """What is left for blocks beside the libraries and `resident` bytes about the samples.

        Raises:
            ConfigError: too little is left.
        """
        left = self.total - LIBRARIES - resident
        if left < LEAST_BLOCKS:
            need = (LIBRARIES + resident + LEAST_BLOCKS) / 10**6
            raise ConfigError(
                f"A memory limit of {self.total / 10**6:,.0f} MB is too little for this dataset; "
                f"it takes {need:,.0f} MB at least."
            )
        return left
