"""The rows of a training run, with their captions and scores, in one memory-mapped file.

FOLDER/index-REQUEST/
  training.arrow    Arrow IPC, sorted by (bucket, shard, place in the tar), for all processes
  held_out.arrow    the rows that are looked at and never trained on, lowest hashes first
  weights.f64       running sums of the rows' weights, where they differ
  index.json        last of all: buckets, kinds, quantiles of scores, fingerprints

It is read through offsets, so memory does not grow with it. REQUEST is a hash of what was asked
for and of the tables it was made from; `fingerprint` is of the content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.files import fingerprint, read_json

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1 << 14
"""Rows of a record batch: row // ROWS is its batch. A batch of three captions takes some 10 MB."""
TRAINING, HELD_OUT, WEIGHTS, RECORD = "training", "held_out", "weights.f64", "index.json"


@dataclass(frozen=True)
class Bucket:
    """Rows [start, stop) of an index, whose pictures are cut to width times height pixels."""

    width: int
    height: int
    start: int
    stop: int


class TrainingIndex:
    """An index as it lies on disk; cheap to open and to send to another process."""

    def __init__(self, folder: Path, part: str = TRAINING) -> None:
        """
        Raises:
            DatasetError: there is no whole index in `folder`.
        """
        self.folder, self.part = folder, part
        record = read_json(folder / RECORD)
        own = record[part]
        self._content: dict[str, str] = own["content"]
        self.fingerprint = fingerprint(self._content)
        """Of all that it holds."""
        self.buckets = [Bucket(**bucket) for bucket in own["buckets"]]
        self.kinds: list[str] = record["kinds"]
        """All kinds that were read; a run's blend is among them."""
        self.dropped: int = record["dropped"]
        """Pictures left out because they lack a caption of the blend, or all if it falls back."""
        self.lacking: dict[str, int] = record["lacking"]
        """Kind -> rows of the training part without a caption of it."""
        self.condition_edges: dict[str, list[float]] = record["conditions"]
        """Score column -> inner edges of its buckets, rising; bucket 1 lies below the first."""
        self.condition_columns: list[str] = list(self.condition_edges)
        self._edges = [np.array(edges) for edges in self.condition_edges.values()]
        self._rows: int = own["rows"]
        self._weighted = part == TRAINING and record["weighted"]

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingIndex, (self.folder, self.part)

    def __len__(self) -> int:
        return self._rows

    # ---- columns of some rows -----------------------------------------------------------------

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Keys of the samples (B,)."""
        return self._texts("key", rows)

    def shards(self, rows: NDArray[np.int64]) -> list[str]:
        """Names of the shards (B,) that hold them."""
        return self._texts("shard", rows)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The keys' numbers (B,), as `key_numbers` makes them."""
        return self._numeric("number", rows)

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, 2) height and width of the stored pictures, pixels."""
        return np.stack([self._numeric(name, rows) for name in ("height", "width")], 1)

    def loss_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B,) factors of the loss."""
        return self._numeric("loss_weight", rows)

    def conditions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, n) bucket of each score, from 1, at quantiles of the training rows; 0 = unknown."""
        buckets = np.zeros((len(rows), len(self.condition_columns)), np.int64)
        for column, edges in enumerate(self._edges):
            scores = self._numeric(f"score_{column}", rows)
            known = ~np.isnan(scores)
            buckets[known, column] = 1 + np.searchsorted(edges, scores[known], "right")
        return buckets

    def has(self, rows: NDArray[np.int64], kind: str) -> NDArray[np.bool_]:
        """(B,) whether a row has an accepted caption of `kind`."""
        batches, within = rows // ROWS, rows % ROWS
        found = np.empty(len(rows), np.bool_)
        for batch in np.unique(batches).tolist():
            here = batches == batch
            offsets, at = self._view(f"captions_{kind}", batch)[0], within[here]
            found[here] = offsets[at + 1] > offsets[at]
        return found

    def captions(self, rows: NDArray[np.int64], kind: str) -> list[list[tuple[int, str]]]:
        """(sample_index, text) of all accepted captions of `kind`, for each row."""
        return [
            [(int(indices[at]), texts[at].as_py()) for at in range(start, stop)]
            for start, stop, indices, texts in self._caption_lists(rows, kind)
        ]

    def chosen_captions(
        self, rows: NDArray[np.int64], kind: str, u: NDArray[np.float64]
    ) -> list[tuple[int, str]]:
        """(sample_index, text) of one caption of `kind` for each row, by numbers u (B,) in 0..1."""
        chosen = []
        places = self._caption_lists(rows, kind)
        for (start, stop, indices, texts), number in zip(places, u.tolist(), strict=True):
            at = start + int(number * (stop - start))
            chosen.append((int(indices[at]), texts[at].as_py()))
        return chosen

    # ---- the whole ----------------------------------------------------------------------------

    def fingerprint_of(self, kinds: Iterable[str]) -> str:
        """16 hex digits of what a run reads that draws these kinds: captions of others may come."""
        others = {f"captions_{kind}" for kind in set(self.kinds).difference(kinds)}
        return fingerprint({n: own for n, own in self._content.items() if n not in others})

    @cached_property
    def weights(self) -> NDArray[np.float64] | None:
        """(N,) running sums of the rows' weights, memory-mapped; None where all are alike."""
        if not self._weighted:
            return None
        return np.memmap(self.folder / WEIGHTS, np.float64, "r", shape=(self._rows,))

    @cached_property
    def pictures_fingerprint(self) -> str:
        """16 hex digits of the pictures alone, in order, and their buckets: not of captions."""
        digest = hashlib.sha256(repr(self.buckets).encode())
        for batch in self._scanned(["number", "sha256"]):
            digest.update(batch.column("number").to_numpy().astype("<u8").tobytes())
            originals = batch.column("sha256")
            _, offsets, text = originals.buffers()
            first = originals.offset
            ends = np.frombuffer(offsets, np.int32)[first : first + len(originals) + 1]
            digest.update(ends.tobytes())
            digest.update(memoryview(text)[ends[0] : ends[-1]] if text else b"")
        return digest.hexdigest()[:16]

    def texts(self, kinds: Sequence[str] | None = None) -> Iterator[str]:
        """Every caption of the kinds (all of them by default), batch by batch."""
        kinds = self.kinds if kinds is None else kinds
        for batch in self._scanned([f"captions_{kind}" for kind in kinds]):
            for kind in kinds:
                yield from batch.column(f"captions_{kind}").values.field("text").to_pylist()

    # ---- reading ------------------------------------------------------------------------------

    def _scanned(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the whole index, a record batch at a time, in memory that is freed again.

        Mapped pages would stay with this process, all of them in the end.
        """
        import pyarrow as pa

        with pa.OSFile(str(self.folder / f"{self.part}.arrow")) as source:
            fields = [self._file.schema.get_field_index(name) for name in columns]
            options = pa.ipc.IpcReadOptions(included_fields=sorted(fields), use_threads=False)
            file = pa.ipc.open_file(source, options=options)
            for number in range(file.num_record_batches):
                yield file.get_batch(number)

    @cached_property
    def _file(self) -> pa.ipc.RecordBatchFileReader:
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self.folder / f"{self.part}.arrow")))

    @cached_property
    def _views(self) -> dict[tuple[str, int], Any]:
        return {}

    def _view(self, name: str, batch: int) -> Any:
        """A column of a batch in place: numpy of numbers, Arrow of texts, parts of lists."""
        view = self._views.get((name, batch))
        if view is None:
            import pyarrow as pa

            column = self._file.get_batch(batch).column(name)
            if pa.types.is_list(column.type):
                inside = column.values
                indices = inside.field("sample_index").to_numpy()
                view = column.offsets.to_numpy(), indices, inside.field("text")
            elif pa.types.is_string(column.type):
                view = column
            else:
                view = column.to_numpy()
            self._views[name, batch] = view
        return view

    def _numeric(self, name: str, rows: NDArray[np.int64]) -> Any:
        batches, within = rows // ROWS, rows % ROWS
        found = [(batch, batches == batch) for batch in np.unique(batches).tolist()]
        if not found:
            return self._view(name, 0)[:0]
        values = np.empty(len(rows), self._view(name, found[0][0]).dtype)
        for batch, here in found:
            values[here] = self._view(name, batch)[within[here]]
        return values

    def _texts(self, name: str, rows: NDArray[np.int64]) -> list[str]:
        return [self._view(name, row // ROWS)[row % ROWS].as_py() for row in rows.tolist()]

    def _caption_lists(
        self, rows: NDArray[np.int64], kind: str
    ) -> Iterator[tuple[int, int, Any, Any]]:
        for row in rows.tolist():
            offsets, indices, texts = self._view(f"captions_{kind}", row // ROWS)
            within = row % ROWS
            yield int(offsets[within]), int(offsets[within + 1]), indices, texts
