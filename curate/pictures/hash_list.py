"""A list of known files and pictures that are never to be stored: md5, sha256 and PDQ.

What is on the list is refused where its bytes come in, before anything of it is written. Lists are
read as their owners export them:

    pdq:HEX                     a hash a line, each with its name; `#` begins a remark
    HEX                         the same without a name: 32 digits, which are an md5; what stands
                                behind a blank is not read, so md5sum's lists are lists
    a table with a header       comma, semicolon or tab; columns named md5, sha256 or pdq (also
                                pdq_hash, HASH_PDQ, ...), or a column with the hash and one with its
                                type (type, signal_type, indicator_type beside hash, value,
                                indicator), as ThreatExchange exports them

64 digits alone may be a sha256 or a PDQ and are refused; hashes of other types (sha1, PhotoDNA,
TMK) are counted and left out.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import logging
import re
import zlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.reasons import FailureError, Reason
from curate.pictures.pdq import MOST_DISTANCE, WORST_QUALITY, PdqIndex, pdq_hash, turned_hashes

logger = logging.getLogger(__name__)

DIGITS = {"md5": 32, "sha256": 64, "pdq": 64}
_VALUES = frozenset({"hash", "value", "indicator", "raw_indicator", "signal", "signal_str"})
_TYPES = frozenset({"type", "signal_type", "indicator_type", "algorithm"})
_HEX = re.compile(r"[0-9a-fA-F]+")


class HashList:
    """The hashes of one file. Memory: 16 or 32 bytes a hash, 96 of a PDQ; look-ups far below 1 ms.

    Args:
        path: the list, which may be a .gz.
        most: distance in bits up to which a PDQ is the same picture.
        turned: whether a picture is also compared as it looks turned and mirrored.

    Raises:
        ConfigError: it cannot be read, holds none, or a line is no hash or may be of two types.
    """

    def __init__(self, path: Path, most: int = MOST_DISTANCE, turned: bool = False) -> None:
        self.name, self._most, self._turned = path.name, most, turned
        found: dict[str, set[bytes]] = defaultdict(set)
        others: Counter[str] = Counter()
        for kind, digest in _hashes(path):
            if digest is None:
                others[kind] += 1
            else:
                found[kind].add(digest)
        if not found:
            raise ConfigError(f"The hash list {path} holds no md5, sha256 or PDQ.")
        if others:
            told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(others.items()))
            logger.warning("hashes of %s that are of other types are left out: %s", path, told)
        self.counts = {kind: len(found[kind]) for kind in DIGITS if found[kind]}
        # Joined and sorted: a set of as many objects would take five times the memory.
        self._sorted = {
            kind: b"".join(sorted(found[kind])) for kind in ("md5", "sha256") if found[kind]
        }
        listed = np.frombuffer(b"".join(found["pdq"]), np.uint8).reshape(-1, 32)
        self._pdq = PdqIndex(listed) if len(listed) else None

    @property
    def sees(self) -> bool:
        """Whether pixels are compared: the list holds a PDQ."""
        return self._pdq is not None

    def check_bytes(self, content: bytes) -> None:
        """Raise FailureError (listed_hash) for a file whose md5 or sha256 is listed."""
        for kind, listed in self._sorted.items():
            digest = hashlib.new(kind, content, usedforsecurity=False).digest()
            size = len(digest)
            count = len(listed) // size
            place = bisect_left(
                range(count), digest, key=lambda at: listed[at * size : (at + 1) * size]
            )
            if listed[place * size : (place + 1) * size] == digest:
                raise FailureError(Reason.LISTED_HASH, f"{kind}, on {self.name}")

    def check_pixels(self, pixels: NDArray[np.uint8]) -> None:
        """Raise FailureError (listed_hash) for (H, W, 3) sRGB whose PDQ is near a listed one."""
        if self._pdq is None:
            return
        if self._turned:
            found, quality = turned_hashes(pixels)
        else:
            upright, quality = pdq_hash(pixels)
            found = [upright]
        if quality < WORST_QUALITY:
            return  # a plain area is near every plain picture
        near = [self._pdq.nearest(one, self._most) for one in found]
        distance = min((one for one in near if one is not None), default=None)
        if distance is not None:
            raise FailureError(Reason.LISTED_HASH, f"pdq within {distance} bits, on {self.name}")


def hash_list(path: str | None, most: int, turned: bool = False) -> HashList | None:
    """The list at `path`, read once a process as long as the file stays as it is; None for none.

    Raises:
        ConfigError: as HashList.
    """
    if path is None:
        return None
    try:
        state = Path(path).stat()
    except OSError as error:
        raise ConfigError(f"The hash list {path} cannot be read ({error.strerror}).") from error
    return _read(path, most, turned, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _read(path: str, most: int, turned: bool, _changed: int, _size: int) -> HashList:
    return HashList(Path(path), most, turned)


def _hashes(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """(type, digest) of each line; None of a type that is not compared."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield from _of_lines(path, file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"The hash list {path} cannot be read ({error}).") from error


def _of_lines(path: Path, file: Iterator[str]) -> Iterator[tuple[str, bytes | None]]:
    lines = (
        (number, line.strip())
        for number, line in enumerate(file, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    top, first = next(lines, (0, ""))
    if not first:
        return
    delimiter = max(",;\t", key=first.count)
    names = [_plain(name) for name in _cells(first, delimiter)]
    columns = [(place, name) for place, name in enumerate(names) if name in DIGITS]
    types = [place for place, name in enumerate(names) if name in _TYPES]
    values = [place for place, name in enumerate(names) if name in _VALUES]
    if not columns and not (types and values):
        for number, line in chain([(top, first)], lines):
            # What stands behind a hash is the file's name, as md5sum writes it, or a remark.
            name, _, digits = line.split()[0].rpartition(":")
            kind = _plain(name) or ("md5" if len(digits) == DIGITS["md5"] else "")
            yield kind, _digest(path, number, kind, digits)
        return
    for number, line in lines:
        cells = _cells(line, delimiter) + [""] * len(names)
        told = columns or [(values[0], _plain(cells[types[0]]))]
        for place, kind in told:
            if cells[place].strip():
                yield kind, _digest(path, number, kind, cells[place])


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _plain(name: str) -> str:
    """`sha256` of "SHA-256", `pdq` of "HASH_PDQ" or "pdq hash"."""
    word = re.sub(r"[\s_-]+", "_", name.strip().lower()).replace("sha_", "sha")
    return re.sub(r"^hash_(?=md5|sha|pdq)|(?<=md5|256|pdq)_hash$", "", word)


def _digest(path: Path, number: int, kind: str, digits: str) -> bytes | None:
    digits = digits.strip()
    place = f"The hash list {path}, line {number}"
    if not kind:
        if len(digits) == 64 and _HEX.fullmatch(digits):
            raise ConfigError(
                f"{place}: 64 hex digits may be a sha256 or a PDQ; write its name before each "
                f"(pdq:HEX), or above all as a header."
            )
        raise ConfigError(f"{place}: {digits[:80]!r} is no hash.")
    if kind not in DIGITS:
        return None
    if len(digits) != DIGITS[kind] or not _HEX.fullmatch(digits):
        raise ConfigError(f"{place}: {digits[:80]!r} is no {kind} ({DIGITS[kind]} hex digits).")
    return bytes.fromhex(digits)
