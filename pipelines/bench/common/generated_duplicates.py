"""Groups of duplicates of a generated dataset: the tables of a search, and what a search reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curate.base.arrow_columns import to_arrow
from curate.duplicates.tables import keep_best
from curate.pictures.copy_descriptor import WIDTH as DESCRIPTOR
from curate.pictures.perceptual_hashes import VIEWS, thumbnails
from curate.store.contract import DUPLICATE_PAIRS, DUPLICATES
from curate.store.dataset import Dataset

PICTURE_ROWS = 500  # of a shard with pictures
SHARE = 0.12  # of rows that are a copy of an earlier row
METHODS = ("exact", "near", "embedding")
_METHOD_SHARE = (0.5, 0.35, 0.15)
_POOL = 3_000


@dataclass(frozen=True)
class Groups:
    """`first[row]` is the row that `row` is a copy of (itself for an original), `method[row]` the
    number in METHODS of how it is near it, `distance[row]` how far it is."""

    first: NDArray[np.int64]
    method: NDArray[np.int8]
    distance: NDArray[np.float32]


def group_rows(rows: int, local: int, random: np.random.Generator) -> Groups:
    """Draw who copies whom.

    Args:
        local: the first rows copy a row of their own neighbourhood, so that both have pictures.
    """
    everyone = np.arange(rows)
    # With pictures, both are in one shard, so that a report can show them side by side.
    near_by = np.minimum(random.integers(1, 40, rows), everyone % PICTURE_ROWS)
    back = np.where(everyone < local, near_by, random.integers(1, rows, rows))
    # A few placeholders are copied very often.
    popular = (random.random(rows) < 0.15) & (everyone >= local)
    source = np.where(popular, local + everyone % 97, everyone - back)
    copies = (random.random(rows) < SHARE) & (source >= 0) & (source < everyone)
    source = np.where(copies, source, everyone)
    while (source[source] != source).any():  # a copy of a copy copies the original
        source = source[source]
    method = random.choice(3, rows, p=_METHOD_SHARE).astype(np.int8)
    bits, cosine = random.integers(0, 9, rows), random.uniform(0.01, 0.1, rows)
    distance = np.select([method == 0, method == 1], [np.zeros(rows), bits], cosine)
    return Groups(source, method, distance.astype(np.float32))


def write_duplicates(
    dataset: Dataset, groups: Groups, keys: NDArray[np.bytes_], quality: NDArray[np.float64]
) -> None:
    """Write duplicate_pairs and duplicates among the stored rows (those with a key).

    One pair a copy: with its original.
    """
    is_copy = groups.first != np.arange(len(keys))  # originals are the better ones
    copy = np.flatnonzero(is_copy & (keys != b"") & (keys[groups.first] != b""))
    pairs, method = np.stack([groups.first[copy], copy], axis=1), groups.method[copy]
    rank = np.empty(len(keys), np.int64)
    rank[np.lexsort((keys, -quality, is_copy))] = np.arange(len(keys))
    pair_tables, group_tables = [], []
    for level, name in enumerate(METHODS):
        mine = method == level
        both = np.sort(keys[pairs[mine]], axis=1)
        order = np.lexsort((both[:, 1], both[:, 0]))
        both, distance = both[order].astype(str), groups.distance[copy[mine]][order]
        columns = [np.full(len(both), name), both[:, 0], both[:, 1], distance]
        pair_tables.append(pa.table([pa.array(c) for c in columns], schema=DUPLICATE_PAIRS))
        keeper = keep_best(pairs[method <= level], rank)
        dropped = np.flatnonzero(keeper != np.arange(len(keeper)))
        rows = np.concatenate([np.unique(keeper[dropped]), dropped])
        rows = rows[np.lexsort((rows, keeper[rows]))]
        kept = keeper[rows] == rows
        columns = [np.full(len(rows), name), keys[rows].astype(str), keys[keeper[rows]].astype(str)]
        columns += [kept, np.where(kept, np.float32(0), groups.distance[rows])]
        group_tables.append(pa.table([pa.array(c) for c in columns], schema=DUPLICATES))
    dataset.write_table("duplicate_pairs", pa.concat_tables(pair_tables))
    dataset.write_table("duplicates", pa.concat_tables(group_tables))


def fingerprint_rows(
    keys: pa.Array, rows: NDArray[np.int64], groups: Groups, random: np.random.Generator
) -> pa.Table:
    """The table `fingerprints` of some rows, in which copies are copies.

    All of an original follows from its number: two of 3,000 smooth random thumbnails, blended, so
    that no two are alike by chance, hashes of its own views and a descriptor. Its copies of the
    methods exact and near have them too, with a flipped bit and a little noise.
    """
    method, count = groups.method[rows], len(rows)
    source = np.where(method == METHODS.index("embedding"), rows, groups.first[rows])
    changed = ((source != rows) & (method == METHODS.index("near")))[:, None]
    hashes = _mixed(source, len(VIEWS))
    bit = np.uint64(1) << random.integers(0, 64, (count, 1)).astype(np.uint64)
    descriptor = _mixed(source + (1 << 40), DESCRIPTOR).astype(np.float32) / 2**63 - 1
    descriptor += changed * random.normal(0, 0.2, descriptor.shape).astype(np.float32)
    descriptor /= np.linalg.norm(descriptor, axis=1, keepdims=True)
    one, other = (_mixed(source + (2 << 40), 2) % np.uint64(_POOL)).T.astype(np.int64)
    blend = (3 * _pictures()[one].astype(np.int16) + 2 * _pictures()[other].astype(np.int16)) // 5
    blend += changed * random.integers(-3, 4, blend.shape, dtype=np.int16)
    pixels = _mixed(np.where(changed[:, 0], rows, source) + (3 << 40), 4).tobytes().hex()
    return pa.table(
        {
            "key": keys,
            "pixel_sha256": pa.array([pixels[64 * i : 64 * i + 64] for i in range(count)]),
            "phash": to_arrow(np.where(changed, hashes ^ bit, hashes), None, pa.list_(pa.uint64())),
            "descriptor": to_arrow(descriptor, None, pa.list_(pa.float16())),
            "thumbnail": to_arrow(blend.clip(0, 255).astype(np.uint8), None, pa.binary()),
        }
    )


def _mixed(rows: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """(B, width) numbers that look random and depend on the row alone (SplitMix64)."""
    step = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = rows.astype(np.uint64)[:, None] * np.uint64(0xD1342543DE82EF95) + step
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def _pictures() -> NDArray[np.uint8]:
    """(3000, 4608) thumbnails of smooth random pictures."""
    random, parts = np.random.default_rng(0), []
    for _ in range(0, _POOL, 500):
        canvas = np.full((500, 128, 128, 3), 128, np.float32)
        for cells, weight in ((3, 1.0), (8, 0.7), (24, 0.5)):
            for row, small in enumerate(random.integers(0, 256, (500, cells, cells, 3), np.uint8)):
                fine = Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC)
                canvas[row] += (np.asarray(fine, np.float32) - 128) * weight
        parts.append(thumbnails(canvas.clip(0, 255).astype(np.uint8)))
    return np.concatenate(parts)
