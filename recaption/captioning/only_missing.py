"""Which pictures have an accepted caption of a kind already, whoever wrote it.

    .scratch/captions/SOURCE/.held/KIND/SHARD.parquet     their keys, while a run lasts

A person's caption (kind human) stands for the kind of the caption that it corrects or calls good,
and for every kind where it is of none, or of the alt text: written from nothing, or imported. A
caption that a person called bad counts for nothing.

What is missing is fixed when a run is planned, before the first caption is asked for, and stays so
until the run has ended well: a run that goes on after a kill asks for what the unbroken one would
have, though its own captions, and those of others, have come since.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.files import atomic_path
from curate.base.kinds import ALT, HUMAN
from curate.store.captions import read_made_from
from curate.store.contract import WRITTEN_BY
from curate.store.dataset import Dataset
from recaption.captioning.drafts import OK, REJECTED

_KEYS = pa.schema([("key", pa.string())])
_COLUMNS = ["key", "kind", "sample_index", "status", "prompt_id"]

Held = dict[str, set[str]]
"""Kind -> keys of the pictures that have an accepted caption of it."""


class OnlyMissing:
    """What a run finds there already; picklable. Cost: three columns of every captions table."""

    def __init__(self, source: str, kinds: Sequence[str]) -> None:
        self._source, self._kinds = source, tuple(kinds)
        self._last: tuple[str, Held] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def held(self, dataset: Dataset, shard: str) -> Held:
        """As it was fixed, or as it is now where it was not. The last shard stays in memory."""
        if self._last is None or self._last[0] != shard:
            paths = {
                kind: self._folder(dataset) / kind / f"{shard}.parquet" for kind in self._kinds
            }
            found = {
                kind: set(pq.read_table(path).column("key").to_pylist())
                for kind, path in paths.items()
                if path.exists()
            }
            left = [kind for kind in self._kinds if kind not in found]
            self._last = shard, {**found, **_held_now(dataset, shard, left)}
        return self._last[1]

    def fix(self, dataset: Dataset) -> None:
        """Note it for every shard in which it was not noted before."""
        for shard in dataset.shards():
            for kind, keys in self.held(dataset, shard).items():
                path = self._folder(dataset) / kind / f"{shard}.parquet"
                if not path.exists():
                    with atomic_path(path) as temporary:
                        pq.write_table(pa.table([sorted(keys)], schema=_KEYS), temporary)

    def fixed(self, dataset: Dataset) -> bool:
        """Whether a run has begun that did not end well."""
        return self._folder(dataset).exists()

    def forget(self, dataset: Dataset) -> None:
        """The run has ended well: the next one looks anew."""
        shutil.rmtree(self._folder(dataset), ignore_errors=True)
        self._last = None

    def _folder(self, dataset: Dataset) -> Path:
        return dataset.directory / ".scratch" / "captions" / self._source / ".held"


def _held_now(dataset: Dataset, shard: str, kinds: Sequence[str]) -> Held:
    held: Held = {kind: set() for kind in kinds}
    sources = [
        s for s in dataset.caption_sources() if kinds and dataset.has_shard("captions", shard, s)
    ]
    bad = _called_bad(dataset, shard, [s for s in sources if s.startswith(WRITTEN_BY)])
    for source in sources:
        rows = dataset.read_table("captions", shard, source, _COLUMNS)
        rows = rows.filter(pc.field("status") == OK)
        names = ("key", "kind", "sample_index", "prompt_id")
        for key, kind, index, about in zip(
            *(rows.column(n).to_pylist() for n in names), strict=True
        ):
            if (source, key, kind, index) in bad:
                continue
            of = about if kind == HUMAN else kind
            every = kind == HUMAN and of in (None, ALT)
            for own in held if every else held.keys() & {of}:
                held[own].add(key)
    return held


def _called_bad(
    dataset: Dataset, shard: str, sources: Sequence[str]
) -> set[tuple[str, str, str, int]]:
    """Source, key, kind and sample index of each caption that somebody called bad."""
    bad = set()
    for source in sources:
        rows = dataset.read_table(
            "captions", shard, source, ["key", "status", "prompt_variables"]
        ).filter(pc.field("status") == REJECTED)
        for row in rows.to_pylist():
            for ref in read_made_from(row["prompt_variables"]):
                bad.add((ref.source, row["key"], ref.kind, ref.sample_index))
    return bad
