"""What an index is written with: record batches of one length, counts, and quantiles."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import DatasetError
from train.data.rows import ROWS

if TYPE_CHECKING:
    import pyarrow as pa


class Writer:
    """An Arrow file in record batches of exactly ROWS, and what is counted in passing."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._digests: dict[str, Any] = {}
        self.buckets: dict[int, int] = {}
        self.total = self.prior_total = 0.0
        self.low, self.high = math.inf, -math.inf
        self._pending: list[pa.Table] = []
        self._waiting = 0
        self._file: pa.ipc.RecordBatchFileWriter | None = None

    def content(self) -> dict[str, str]:
        """Column -> hash of its keys, originals, texts or numbers, in order; not of Arrow's bytes.

        The shard does not count: the same pictures may lie in other tars.
        """
        return {
            name: own.hexdigest()[:16] for name, own in self._digests.items() if name != "shard"
        }

    def add(self, samples: pa.Table) -> None:
        """Write samples behind those before."""
        self._count(samples)
        self._pending.append(samples)
        self._waiting += samples.num_rows
        while self._waiting >= ROWS:
            self._write(ROWS)

    def close(self) -> None:
        """Write what is left."""
        self._write(self._waiting)
        assert self._file is not None
        self._file.close()

    def _write(self, count: int) -> None:
        import pyarrow as pa

        waiting = pa.concat_tables(self._pending).combine_chunks()
        if self._file is None:
            self._file = pa.ipc.new_file(str(self.path), waiting.schema)
        if count:
            self._file.write_table(waiting.slice(0, count), max_chunksize=ROWS)
            self._note(waiting.slice(0, count))
        self._pending = [waiting.slice(count)]
        self._waiting -= count

    def _note(self, samples: pa.Table) -> None:
        import pyarrow.compute as pc

        for name in samples.column_names:
            column = samples.column(name)
            digest = self._digests.setdefault(name, hashlib.sha256())
            if name.startswith("captions_"):
                inside = pc.list_flatten(column)
                texts = pc.struct_field(inside, "text").to_pylist()
                parts = [list_lengths(column), pc.struct_field(inside, "sample_index").to_numpy()]
                digest.update(b"".join(part.astype("<i8").tobytes() for part in parts))
                digest.update("\0".join(texts).encode())
            elif name in ("key", "sha256"):
                digest.update("\0".join(map(str, column.to_pylist())).encode())
            elif name != "shard":
                digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())

    def _count(self, samples: pa.Table) -> None:
        self.rows += samples.num_rows
        if not samples.num_rows:
            return
        numbers, counts = np.unique(samples.column("bucket").to_numpy(), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self.buckets[number] = self.buckets.get(number, 0) + count
        weights = samples.column("weight").to_numpy()
        prior = samples.column("prior").to_numpy()
        self.prior_total += float(weights[prior].sum())
        self.total += float(weights[~prior].sum())
        self.low, self.high = min(self.low, weights.min()), max(self.high, weights.max())


class Column:
    """A column of a written file, as arrays, batch by batch, as often as one likes."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __iter__(self) -> Iterator[NDArray[Any]]:
        import pyarrow as pa

        with pa.memory_map(str(self.path)) as source:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                yield file.get_batch(number).column(self.name).to_numpy(zero_copy_only=False)


def write_weights(path: Path, written: Writer) -> bool:
    """Running sums of the rows' weights as float64; of a selection and its prior each half.

    Returns:
        False, and nothing is written, where all are alike.

    Raises:
        DatasetError: there are weights that are none.
    """
    sums_up = math.isfinite(written.total + written.prior_total) and written.total > 0
    if written.low < 0 or not sums_up:
        raise DatasetError("The selection's weights must be finite, 0 or more, and not all 0.")
    if written.low == written.high and not written.prior_total:
        return False
    own = 0.5 / written.total if written.prior_total else 1 / written.total
    prior = 0.5 / written.prior_total if written.prior_total else 0.0
    before = 0.0
    columns = (Column(written.path, name) for name in ("weight", "prior"))
    with open(path, "wb") as file:
        for weights, is_prior in zip(*columns, strict=True):
            sums = before + np.cumsum(weights * np.where(is_prior, prior, own))
            file.write(sums.astype("<f8").tobytes())
            before = float(sums[-1])
    return True


def quantiles(scores: Iterable[NDArray[np.float32]], parts: int) -> list[float]:
    """The parts - 1 inner quantiles of float32 scores without NaN, exactly, in constant memory.

    Floats sort as their bits do, once the negative ones are turned; so the upper 16 bits are
    counted first, then the lower 16 of those upper ones that hold a quantile.
    """
    upper = np.zeros(1 << 16, np.int64)
    for values in scores:
        upper += np.bincount(_sortable(values) >> 16, minlength=1 << 16)
    total = int(upper.sum())
    if not total:
        return []
    ranks = np.arange(1, parts) * total // parts
    ends = np.cumsum(upper)
    prefixes = np.searchsorted(ends, ranks, "right")
    lower = {int(prefix): np.zeros(1 << 16, np.int64) for prefix in prefixes}
    for values in scores:
        bits = _sortable(values)
        for prefix, counts in lower.items():
            counts += np.bincount(bits[bits >> 16 == prefix] & 0xFFFF, minlength=1 << 16)
    found = []
    for rank, prefix in zip(ranks.tolist(), prefixes.tolist(), strict=True):
        within = rank - int(ends[prefix] - upper[prefix])
        low = int(np.searchsorted(np.cumsum(lower[prefix]), within, "right"))
        found.append(prefix << 16 | low)
    bits = np.array(found, np.uint32)
    bits = np.where(bits >> 31, bits ^ np.uint32(1 << 31), ~bits)
    return [float(value) for value in bits.view(np.float32)]


def _sortable(values: NDArray[np.float32]) -> NDArray[np.int64]:
    bits = np.ascontiguousarray(values[~np.isnan(values)], np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64)


def starts_of(keys: Any) -> NDArray[np.int64]:
    """Rows at which a new key begins, among rows of which equal keys are neighbours."""
    import pyarrow.compute as pc

    new = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy()
    return np.concatenate([[0], 1 + np.flatnonzero(new)]).astype(np.int64)


def list_lengths(lists: Any) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(lists).to_numpy(), np.int64)


def one_array(column: Any) -> Any:
    """A chunked column as one array."""
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
