"""Groups of duplicates of a generated dataset, and the tables that duplicate search would write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.duplicates.keep import keep_best
from curate.store.dataset import DUPLICATE_PAIRS, DUPLICATES, Dataset

PICTURE_ROWS = 500  # of a shard with pictures
SHARE = 0.12  # of rows that are a copy of an earlier row
METHODS = ("exact", "near", "embedding")
_METHOD_SHARE = (0.5, 0.35, 0.15)


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
    copies = random.random(rows) < SHARE
    # With pictures, both are in one shard, so that a report can show them side by side.
    into_shard = everyone % PICTURE_ROWS
    near_by = np.minimum(random.integers(1, 40, rows), into_shard)
    back = np.where(everyone < local, near_by, random.integers(1, rows, rows))
    # A few placeholders are copied very often.
    popular = random.random(rows) < 0.15
    source = np.where(popular & (everyone >= local), local + everyone % 97, everyone - back)
    source = np.where(copies & (source >= 0) & (source < everyone), source, everyone)
    while (source[source] != source).any():  # a copy of a copy copies the original
        source = source[source]
    method = random.choice(3, rows, p=_METHOD_SHARE).astype(np.int8)
    distance = np.select(
        [method == 0, method == 1],
        [np.zeros(rows), random.integers(0, 9, rows)],
        random.uniform(0.01, 0.1, rows),
    )
    return Groups(source, method, distance.astype(np.float32))


def write_duplicates(
    dataset: Dataset, groups: Groups, keys: NDArray[np.bytes_], quality: NDArray[np.float64]
) -> None:
    """Write duplicate_pairs and duplicates among the stored rows (those with a key).

    One pair a copy: with its original.
    """
    stored = keys != b""
    copy = np.flatnonzero((groups.first != np.arange(len(keys))) & stored)
    first = groups.first[copy]
    there = stored[first]
    pairs = np.stack([first[there], copy[there]], axis=1)
    method, distance = groups.method[copy[there]], groups.distance[copy[there]]
    rank = np.empty(len(keys), np.int64)
    is_copy = groups.first != np.arange(len(keys))  # originals are the better ones
    rank[np.lexsort((keys, -quality, is_copy))] = np.arange(len(keys))
    pair_tables, group_tables = [], []
    for level, name in enumerate(METHODS):
        mine = method == level
        pair_tables.append(_pair_rows(name, keys[pairs[mine]], distance[mine]))
        group_tables.append(_group_rows(name, pairs[method <= level], keys, rank, groups.distance))
    dataset.write_table("duplicate_pairs", pa.concat_tables(pair_tables))
    dataset.write_table("duplicates", pa.concat_tables(group_tables))


def _pair_rows(name: str, keys: NDArray[np.bytes_], distance: NDArray[np.float32]) -> pa.Table:
    ordered = np.sort(keys, axis=1)
    order = np.lexsort((ordered[:, 1], ordered[:, 0]))
    columns = [
        pa.array(np.full(len(keys), name)),
        pa.array(ordered[order, 0].astype(str)),
        pa.array(ordered[order, 1].astype(str)),
        pa.array(distance[order]),
    ]
    return pa.table(columns, schema=DUPLICATE_PAIRS)


def _group_rows(
    name: str,
    pairs: NDArray[np.int64],
    keys: NDArray[np.bytes_],
    rank: NDArray[np.int64],
    distance: NDArray[np.float32],
) -> pa.Table:
    keeper = keep_best(pairs, rank)
    dropped = np.flatnonzero(keeper != np.arange(len(keeper)))
    kept = np.unique(keeper[dropped])
    rows = np.concatenate([kept, dropped])
    order = np.lexsort((rows, keeper[rows]))
    rows = rows[order]
    columns = [
        pa.array(np.full(len(rows), name)),
        pa.array(keys[rows].astype(str)),
        pa.array(keys[keeper[rows]].astype(str)),
        pa.array(keeper[rows] == rows),
        pa.array(np.where(keeper[rows] == rows, np.float32(0), distance[rows])),
    ]
    return pa.table(columns, schema=DUPLICATES)
