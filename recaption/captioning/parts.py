"""Checkpoints inside a shard: part files in a hidden folder, merged when the shard is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.files import atomic_path
from curate.store.claims import empty_directory
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from recaption.captioning.collapse import collapses, without_collapsed

CaptionId = tuple[str, str, int]
"""(key, kind, sample index): what makes a caption one row of its source."""

_ID_COLUMNS = ["key", "kind", "sample_index"]
_FATE_COLUMNS = ["status", "created_at"]


class ShardCaptions:
    """The captions of one source and shard: the finished table and the parts written since.

    A kill loses at most the part that was being captioned. Parts lie outside of the tables, so no
    reader ever sees a shard half done.
    """

    def __init__(
        self,
        dataset: Dataset,
        source: str,
        shard: str,
        stands: Callable[[pa.Table], pa.Table] | None = None,
    ) -> None:
        """`stands`: the rows (with prompt_variables) that are still what would be written."""
        self._dataset = dataset
        self._stands = stands
        self._columns = [*_ID_COLUMNS, *_FATE_COLUMNS, *(["prompt_variables"] if stands else [])]
        self._source = source
        self._shard = shard
        self._collapses = collapses(dataset, source)

    @property
    def scratch(self) -> Path:
        """Where the parts lie."""
        return self._dataset.directory / ".scratch" / "captions" / self._source / self._shard

    def finished(self, without_failed: bool = False) -> set[CaptionId]:
        """Captions in the finished table, but for those that a collapse left to be asked again,
        and those that stand no more.

        Args:
            without_failed: leave out those that failed as well.
        """
        if not self._dataset.has_shard("captions", self._shard, self._source):
            return set()
        table = self._dataset.read_table("captions", self._shard, self._source, self._columns)
        return self._ids(_keep(table, without_failed))

    def written(self, without_failed: bool = False) -> set[CaptionId]:
        """Every caption written so far, in the finished table or in a part; see `finished`.

        Args:
            without_failed: leave out those that failed in the finished table. Parts are of the run
                that is being continued, so their failures stand.
        """
        found = self.finished(without_failed)
        for name in self.parts():
            found |= self._ids(pq.read_table(self.scratch / name, columns=self._columns))
        return found

    def parts(self) -> list[str]:
        """Names of the parts."""
        return sorted(path.name for path in self.scratch.glob("[!.]*.parquet"))

    def add_part(self, rows: pa.Table) -> None:
        """Put rows beside the finished table, durably.

        A part is named by the captions that it holds: writing the same ones again, as a worker does
        that died before it could say so, replaces the part.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.scratch / f"{_name_of(rows)}.parquet") as temporary:
            pq.write_table(rows, temporary)

    def finish(self) -> pa.Table:
        """Merge the parts into the table, drop them, and return the table.

        A caption stands once: a part goes before the finished table, whose row may have failed, and
        a newer part before an older one. Rows are sorted, so resuming changes none.
        """
        parts = [pq.read_table(self.scratch / name, schema=CAPTIONS) for name in self.parts()]
        parts.sort(key=lambda part: part.column("created_at")[0].as_py(), reverse=True)
        if self._dataset.has_shard("captions", self._shard, self._source):
            table = self._dataset.read_table("captions", self._shard, self._source)
            if not parts:
                return table
            parts.append(table.cast(CAPTIONS))
        rows = pa.concat_tables([CAPTIONS.empty_table(), *parts])
        first = {name: row for row, name in reversed(list(enumerate(_id_rows(rows))))}
        rows = rows.take(pa.array(sorted(first.values()), pa.int64()))
        rows = rows.sort_by([(name, "ascending") for name in _ID_COLUMNS])
        self._dataset.write_table("captions", rows, self._shard, self._source)
        empty_directory(self.scratch)
        return rows

    def _ids(self, rows: pa.Table) -> set[CaptionId]:
        rows = without_collapsed(rows, self._collapses)
        return caption_ids(self._stands(rows) if self._stands else rows)


def _name_of(rows: pa.Table) -> str:
    listing = "\n".join(f"{key} {kind} {index}" for key, kind, index in _id_rows(rows))
    return hashlib.blake2b(listing.encode(), digest_size=12).hexdigest()


def caption_ids(table: pa.Table) -> set[CaptionId]:
    """The (key, kind, sample index) of every row."""
    return set(_id_rows(table))


def _id_rows(table: pa.Table) -> list[CaptionId]:
    return list(zip(*(table.column(name).to_pylist() for name in _ID_COLUMNS), strict=True))


def _keep(table: pa.Table, without_failed: bool) -> pa.Table:
    return table.filter(pc.field("status") != "failed") if without_failed else table
