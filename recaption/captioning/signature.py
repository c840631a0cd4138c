"""A caption's signature: MinHash of its runs of three words, so that near-repeats can be found.

Two captions agree in about as many of their 64 numbers as their sets of three-word runs overlap
(Jaccard; Broder 1997), with a standard error of at most 0.06. Only the low 16 bits of each minimum
are kept (b-bit minwise hashing, Li and Koenig 2010): two different ones agree by chance once in
65,536. Signatures are 128 bytes, the same on every machine, and computed a caption at a time.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HASHES = 64
RUN_WORDS = 3
# A Han or kana character is a word, as for the gates.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")


def _constants(name: str) -> NDArray[np.uint64]:
    """Fixed random 64-bit numbers, independent of NumPy's version."""
    stream = hashlib.shake_128(name.encode()).digest(8 * HASHES)
    return np.frombuffer(stream, "<u8").astype(np.uint64)


_FACTORS = _constants("caption signature, factor") | np.uint64(1)
_OFFSETS = _constants("caption signature, offset")


def signatures(texts: Sequence[str]) -> list[bytes]:
    """128 bytes a text: 64 little-endian uint16. About 60 us a descriptive caption."""
    runs = [_runs(text) for text in texts]
    if not runs:
        return []
    starts = np.cumsum([0, *(len(some) for some in runs[:-1])])
    flat = np.fromiter((run for some in runs for run in some), np.uint64)
    out = np.empty((len(texts), HASHES), "<u2")
    for place in range(HASHES):
        # Multiply-shift (Dietzfelbinger et al. 1997): the upper half of a product that wraps.
        hashed = (flat * _FACTORS[place] + _OFFSETS[place]) >> np.uint64(32)
        out[:, place] = (np.minimum.reduceat(hashed, starts) & np.uint64(0xFFFF)).astype("<u2")
    return [row.tobytes() for row in out]


def agreement(ones: NDArray[np.uint16], others: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(N, 64) and (N, 64) uint16 -> (N,) estimated Jaccard similarity, 0 to 1."""
    return np.asarray((ones == others).mean(axis=1))


def _runs(text: str) -> list[int]:
    """64-bit hashes of its runs of three words; a shorter text is one run."""
    words = _WORD.findall(text.lower())
    count = max(1, len(words) - RUN_WORDS + 1)
    grams = (" ".join(words[start : start + RUN_WORDS]).encode() for start in range(count))
    # Two 32-bit sums, forwards and backwards, make 64 bits at a tenth of a cryptographic hash.
    return [zlib.crc32(gram) << 32 | zlib.crc32(gram[::-1]) for gram in grams]
