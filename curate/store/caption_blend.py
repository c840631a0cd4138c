"""Numbers drawn by hash, and the share of each caption kind: the same for training and export.

A draw is a function of (seed, epoch, key of the sample) and of nothing else. A sample whose number
u lies under the share p of a kind takes that kind, so raising p only moves samples over: blends of
one seed nest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError

# The kind that came with the picture. It takes what the others leave, in every blend.
ORIGINAL_KIND = "alt"

# Streams of independent draws for one seed.
BLEND, DROPOUT, CHOICE, EXPORT_ORDER = 1, 2, 3, 4


def key_numbers(keys: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit number a key (N,), from blake2b, so that any keys mix well."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hash_uniform(
    numbers: NDArray[np.uint64], epoch: NDArray[np.int64] | int, seed: int, stream: int
) -> NDArray[np.float64]:
    """A number in [0, 1) for each key number (N,): splitmix64 (Steele et al. 2014) of its parts."""
    return (hash_bits(numbers, epoch, seed, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hash_bits(
    numbers: NDArray[np.uint64], epoch: NDArray[np.int64] | int, seed: int, stream: int
) -> NDArray[np.uint64]:
    """The 64 bits (N,) that `hash_uniform` is made of; sorting by them shuffles."""
    mixed = splitmix(np.asarray(numbers, np.uint64) ^ splitmix(np.uint64(seed)))
    mixed = splitmix(mixed ^ np.asarray(epoch).astype(np.uint64))
    return splitmix(mixed ^ np.uint64(stream))


def blend_order(blend: Mapping[str, float]) -> list[str]:
    """The kinds with a share above 0: by name, the original one last, so that blends nest."""
    return sorted((k for k in blend if blend[k] > 0), key=lambda k: (k == ORIGINAL_KIND, k))


def blend_bounds(blend: Mapping[str, float]) -> NDArray[np.float64]:
    """Upper bounds of the kinds' shares of [0, 1), in `blend_order`."""
    return np.cumsum([blend[kind] for kind in blend_order(blend)])


def fallback_order(blend: Mapping[str, float]) -> list[str]:
    """The kinds with a share above 0, the largest first: which one a picture takes that lacks the
    kind that was drawn for it, where a blend may fall back."""
    return sorted(blend_order(blend), key=lambda kind: (-blend[kind], kind))


def drawn_kind(bounds: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into `blend_order` (N,) for numbers u in [0, 1) (N,)."""
    return np.minimum(np.searchsorted(bounds, u, "right"), len(bounds) - 1)


def check_blend(blend: Mapping[str, float]) -> None:
    """Raise ConfigError unless the shares are 0 or more and sum to 1."""
    total = sum(blend.values())
    if not blend or min(blend.values()) < 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ConfigError(
            f"The shares of the captions sum to {total:g} and must sum to 1, as in "
            f"descriptive=0.95,alt=0.05."
        )


def splitmix(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """A bijection of 64 bits that mixes well: splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))
