"""A stage: what it needs, what it adds, and one shard at a time. Knows nothing of Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from curate.store.dataset import Dataset


class Stage(ABC):
    """One pass over the shards of a dataset.

    The unit of work is a shard: `run` reads the shard's tables, computes, and writes its own
    tables atomically. A finished shard is recognised by those tables (`is_done`), so a run that
    was killed continues where it stopped and needs no state of its own. Instances travel to
    workers by pickle and therefore hold settings only; `open` loads weights once a worker.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Tables that must hold the shard before the stage runs, such as ("samples",)."""
    adds: ClassVar[tuple[str, ...]] = ()
    """Tables that hold the shard afterwards."""

    @property
    def opening(self) -> str:
        """What a person reads before `open` takes its time; empty where it takes none."""
        return ""

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether every table that the stage adds already holds `shard`."""
        return all(dataset.has_shard(table, shard) for table in self.adds)

    def open(self) -> None:
        """Load what is dear to load (weights), once in each worker. Default: nothing."""
        return

    @abstractmethod
    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Process one shard and return counters such as {"stored": 480, "http_404": 20}."""
