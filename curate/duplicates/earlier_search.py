"""What an earlier duplicate search of this dataset found, so that only new samples are searched.

A search leaves behind the pairs of every method (duplicate_pairs) and, for every sample, by which
methods it was compared with the others (duplicate_searched). The next search takes over the pairs
between samples that were both compared before, and compares the rest: new samples with all, old
ones with the new. Then:

exact, near by hashes   equal what one search of everything finds, bit for bit, as long as no sample
                        has more look-alikes than the searches' bounds for crowds
                        (curate.duplicates.candidates.hash_pairs, `look_alikes`, `neighbours`); in a
                        crowd, at least that.
near by descriptors,    the same under the centroids of the first search, which are kept (search/)
embedding, semdedup     until the dataset is four times as large. They differ from what k-means
                        over everything would give, and so can a pair at a border.

A sample counts as compared when key and pixels are the same, and a method's pairs hold while its
settings and the columns that it reads have the same signatures. The quality decides no pair: a new
one costs no search.

Killed between its tables, a search leaves at worst pairs of samples that do not count as compared
yet; they are found again, and a pair stands once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.base.arrow_columns import key_array
from curate.base.column_marks import note, noted_in
from curate.base.files import fingerprint
from curate.duplicates.candidates.clusters import Tree, train
from curate.duplicates.candidates.neighbours import ALL_UP_TO
from curate.duplicates.candidates.vectors import Vectors
from curate.duplicates.samples import Found, Samples
from curate.store.contract import DUPLICATE_SEARCHED
from curate.store.dataset import Dataset

MARKS = b"caplab_searched"
_OUTGROWN = 4


class EarlierSearch:
    """Pairs and compared samples of the search before, as far as they hold under `marks`.

    Args:
        representative: (N,) the best of the exact copies of each row. It stands for them in a
            search, and what is known of one holds for whichever is the best now.
        marks: method -> fingerprint of all that its pairs depend on, such as {"near": "3f..."}.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: Samples,
        representative: NDArray[np.int64],
        marks: Mapping[str, str],
    ) -> None:
        self._dataset, self._samples = dataset, samples
        self._representative = representative
        self._order = np.argsort(samples.keys)
        self._keys = samples.keys[self._order]
        self._compared = {method: np.zeros(len(samples), bool) for method in marks}
        tables = ("duplicate_pairs", "duplicate_searched")
        if not all(dataset.has_shard(table) for table in tables):
            return
        notes = [noted_in(dataset.table_path(table), MARKS) for table in tables]
        hold = [name for name in marks if all(note.get(name) == marks[name] for note in notes)]
        if not hold:
            return
        table = dataset.read_table("duplicate_searched")
        rows = self._rows(table.column("key"))
        pixels = table.column("pixels").to_numpy()
        same = (rows >= 0) & (samples.pixel_sha256[rows, 0] == pixels)
        for method in hold:
            compared = table.column(method).to_numpy(zero_copy_only=False)
            self._compared[method][rows[same & compared]] = True

    def fresh(self, method: str, taking_part: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """(N,) rows that have to be compared by `method`; None where none was compared before."""
        compared = self._compared[method]
        return ~compared if compared[taking_part].any() else None

    def pairs(self, method: str, taking_part: NDArray[np.int64]) -> Found:
        """Earlier pairs of `method` between rows that take part again."""
        takes = np.zeros(len(self._samples), bool)
        takes[taking_part] = True
        takes &= self._compared[method]
        if not takes.any():
            return Found(np.empty((0, 2), np.int64), np.empty(0, np.float32))
        path = self._dataset.table_path("duplicate_pairs")
        table = pq.read_table(path, filters=[("method", "=", method)])
        a, b = self._rows(table.column("key_a")), self._rows(table.column("key_b"))
        both = (a >= 0) & (b >= 0) & (a != b) & takes[a] & takes[b]
        pairs = np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)[both]
        return Found(pairs, table.column("distance").to_numpy()[both].astype(np.float32))

    def _rows(self, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """Row that stands for each key, -1 where there is none."""
        keys = key_array(column)
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._representative[self._order[at]], -1)


def searched_rows(
    samples: Samples, compared: Mapping[str, NDArray[np.int64]], marks: Mapping[str, str]
) -> pa.Table:
    """The table duplicate_searched: which rows were compared by which method, ordered by key."""
    order = np.argsort(samples.keys)
    columns: dict[str, Any] = {
        "key": samples.keys[order].astype(str),
        "pixels": samples.pixel_sha256[order, 0],
    }
    for name in DUPLICATE_SEARCHED.names[2:]:
        mask = np.zeros(len(samples), bool)
        mask[compared.get(name, np.empty(0, np.int64))] = True
        columns[name] = mask[order]
    table = pa.table([pa.array(column) for column in columns.values()], schema=DUPLICATE_SEARCHED)
    return table.replace_schema_metadata(note(marks, MARKS))


def merged(first: Found, second: Found) -> Found:
    """All pairs of both, each once, sorted; of two distances the first's."""
    if not len(first.pairs):
        return second
    pairs = np.concatenate([first.pairs, second.pairs])
    distance = np.concatenate([first.distance, second.distance])
    order = np.lexsort((np.arange(len(pairs)), pairs[:, 1], pairs[:, 0]))
    pairs, distance = pairs[order], distance[order]
    kept = np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(axis=1)])
    return Found(pairs[kept], distance[kept])


def column_marks(dataset: Dataset, table: str, columns: Sequence[str] | None = None) -> str:
    """A fingerprint of what made the columns of `table` (all, or some), over all its shards."""
    found = set()
    for shard in dataset.shards():
        if dataset.has_shard(table, shard):
            marks = noted_in(dataset.table_path(table, shard))
            some = {name: marks.get(name) for name in columns} if columns is not None else marks
            found.add(json.dumps(some, sort_keys=True))
    return fingerprint(sorted(found))


def kept_tree(dataset: Dataset, name: str, vectors: Vectors, mark: str) -> Tree | None:
    """The centroids to search `vectors` with: those of the first search, or new ones.

    Kept in search/NAME-MARK.npz. None where there are few vectors and all are compared.
    """
    if len(vectors) <= ALL_UP_TO:
        return None
    path = dataset.directory / "search" / f"{name}-{mark}.npz"
    if path.exists():
        tree = Tree.load(path)
        if tree.trained_on * _OUTGROWN >= len(vectors):
            return tree
    tree = train(vectors)
    for old in path.parent.glob(f"{name}-*.npz"):
        if old != path:
            old.unlink()
    tree.save(path)
    return tree
