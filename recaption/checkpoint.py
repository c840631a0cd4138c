"""Checkpoints inside a shard: part files in a hidden folder, merged when the shard is finished."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.dataset import CAPTIONS, Dataset, empty_directory
from curate.files import atomic_path

CaptionId = tuple[str, str, int]
"""(key, kind, sample index): what makes a caption one row of its source."""

_ID_COLUMNS = ["key", "kind", "sample_index"]


class ShardCaptions:
    """The captions of one source and shard: the finished table and the parts written since.

    A kill loses at most the part that was being captioned. Parts lie outside of the tables, so no
    reader ever sees a shard half done.
    """

    def __init__(self, dataset: Dataset, source: str, shard: str) -> None:
        self._dataset = dataset
        self._source = source
        self._shard = shard

    @property
    def scratch(self) -> Path:
        """Where the parts lie."""
        return self._dataset.directory / ".scratch" / "captions" / self._source / self._shard

    def finished(self, without_failed: bool = False) -> set[CaptionId]:
        """Captions in the finished table; `without_failed` leaves out those that failed."""
        if not self._dataset.has_shard("captions", self._shard, self._source):
            return set()
        table = self._dataset.read_table(
            "captions", self._shard, self._source, columns=[*_ID_COLUMNS, "status"]
        )
        return caption_ids(_keep(table, without_failed))

    def load(self, without_failed: bool = False) -> pa.Table:
        """Every row written so far, finished or in a part."""
        # Parts were written by the run that is being continued, so their failures stand.
        parts = [pq.read_table(path, schema=CAPTIONS) for path in self._parts()]
        rows = pa.concat_tables([CAPTIONS.empty_table(), *parts])
        if self._dataset.has_shard("captions", self._shard, self._source):
            finished = self._dataset.read_table("captions", self._shard, self._source)
            finished = _keep(finished, without_failed).cast(CAPTIONS)
            # A part may hold a second try of a row that failed in the finished table.
            newer = caption_ids(rows)
            old = [name not in newer for name in _id_rows(finished)]
            rows = pa.concat_tables([finished.filter(pa.array(old, pa.bool_())), rows])
        return rows

    def add_part(self, rows: pa.Table) -> None:
        """Put rows beside the finished table, durably."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        parts = self._parts()
        number = int(parts[-1].stem) + 1 if parts else 0
        with atomic_path(self.scratch / f"{number:06d}.parquet") as temporary:
            pq.write_table(rows, temporary)

    def finish(self, rows: pa.Table) -> None:
        """Write the table and drop the parts. Rows are sorted, so resuming changes no byte."""
        ordered = rows.sort_by([(name, "ascending") for name in _ID_COLUMNS])
        self._dataset.write_table("captions", ordered, self._shard, self._source)
        empty_directory(self.scratch)

    def _parts(self) -> list[Path]:
        return sorted(self.scratch.glob("[0-9]*.parquet"))


def caption_ids(table: pa.Table) -> set[CaptionId]:
    """The (key, kind, sample index) of every row."""
    return set(_id_rows(table))


def _id_rows(table: pa.Table) -> list[CaptionId]:
    return list(zip(*(table.column(name).to_pylist() for name in _ID_COLUMNS), strict=True))


def _keep(table: pa.Table, without_failed: bool) -> pa.Table:
    return table.filter(pc.field("status") != "failed") if without_failed else table
