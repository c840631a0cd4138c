"""What is being looked at: a directory, its kind, and DuckDB over its tables as they are now.

Readers take no lock, and a dataset may be looked at while it is written. `cursor` is of one
connection that reads the dataset's tables and selections and no other file; it is made again when
their files have changed, which is looked up at most every two seconds.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from curate.base.errors import DatasetError
from curate.base.files import read_record, remove_leftovers
from curate.search.place import elsewhere
from curate.store.contract import SCHEMAS
from curate.store.dataset import Dataset
from pipelines.view.order import Order
from pipelines.view.tables import Tables, files_mark, tars_mark

if TYPE_CHECKING:
    import duckdb

    from curate.store.sample_view import SampleTables

Kind = Literal["dataset", "run", "study"]
LOOKED_EVERY = 2.0
"""Seconds between two looks at the files, and ten times what the last one took if that is more."""


@dataclass
class Opened:
    """A directory that is looked at. Safe to use from many threads."""

    directory: Path
    kind: Kind
    cache: Path
    """For thumbnails and copies of the tables: DIR/view, or a temporary folder; may be lost."""
    dataset: Dataset | None
    rule_keys: Callable[[Opened, Order], str] | None = None
    """The side of an order's rule -> a SELECT of `key`; the rule box provides it."""
    caption_keys: Callable[[Opened, str], str] | None = None
    """Filters of captions as a query -> a SELECT of `key`; the page of captions provides it."""
    by: str | None = None
    """Who looks, for the marks that they make; None where nobody said."""
    orders: OrderedDict[str, Order] = field(default_factory=OrderedDict)
    """Name -> what decides it, of the orders that were asked for last; see pipelines.view.rows."""
    _tables: Tables | None = None
    _pictures: str = ""
    _looked: float = 0.0
    _look_seconds: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _ends: list[Callable[[], None]] = field(default_factory=list)

    @property
    def tables(self) -> Tables:
        """The dataset's tables as they were at the last look.

        Raises:
            DatasetError: there is no dataset behind this run, or it cannot be read.
        """
        if self.dataset is None:
            raise DatasetError(f"No dataset is known of {self.directory}.")
        with self._lock:
            now = time.monotonic()
            if self._tables is None or now > self._looked + max(
                LOOKED_EVERY, 10 * self._look_seconds
            ):
                mark = files_mark(self.dataset, tuple(SCHEMAS), selections=True)
                self._pictures = tars_mark(self.dataset)
                if self._tables is None or self._tables.mark != mark:
                    # Those who are still at a question keep the tables of before.
                    self._tables = Tables(self.dataset, self.cache, mark)
                self._looked = time.monotonic()
                self._look_seconds = self._looked - now
            return self._tables

    @property
    def pictures(self) -> str:
        """Changes with what the dataset's pictures are; stands in their addresses.

        The same key names other pictures in another dataset, and in a shard that is stored anew.
        """
        return self._pictures if self.tables else ""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor for one question of one thread.

        It sees every table of the dataset by its name (a table without files is empty) and
        `sample`: one row a stored sample with the columns of curate.store.sample_view and those
        of the captions' scores (null where a sample is not scored yet), copied into DuckDB's own
        format, so that any column costs milliseconds at a million rows.
        """
        return self.tables.connection.cursor()

    def sample_tables(self) -> SampleTables:
        """What resolves rules of a selection, apart for one question.

        Raises:
            DatasetError: nothing has been scored yet.
        """
        return self.tables.sample_tables()

    def changed(self) -> None:
        """Look at the files again before the next answer: the page itself has written."""
        self._looked = 0.0
        self._look_seconds = 0.0

    def at_end(self, function: Callable[[], None]) -> None:
        """Have `function` called when the server ends."""
        self._ends.append(function)

    def close(self) -> None:
        """End what runs, and remove what serves this process alone.

        Tables that are being copied are not waited for: the next start removes what is left.
        """
        if self._lock.acquire(timeout=1):
            if self._tables is not None:
                self._tables.close()
                self._tables = None
            self._lock.release()
        for function in self._ends:
            function()


def find(directory: Path | str) -> Opened:
    """Open a dataset, a training run, a study or a demo's directory.

    Raises:
        DatasetError: it is none of these.
    """
    directory = Path(directory).absolute()
    if (directory / "demo.json").exists() and (directory / "dataset" / "dataset.json").exists():
        directory = directory / "dataset"
    if (directory / "dataset.json").exists():
        return Opened(directory, "dataset", cache_of(directory), Dataset.open(directory))
    if not (directory / "run.json").exists():
        if (directory / "study.json").exists():
            raise DatasetError(
                f"The study {directory} has no results yet; the same `caplab ablate` goes on, and "
                f"meanwhile each of its runs, such as runs/ARM/seed-0, can be opened by itself."
            )
        raise DatasetError(
            f"{directory} is neither a dataset nor a run; give a directory that `caplab curate`, "
            f"`train`, `ablate` or `demo` wrote."
        )
    record = read_record(directory / "run.json")
    kind: Kind = "study" if record.get("kind") == "ablation" else "run"
    place = str(record.get("dataset_directory") or "")
    known = place and (Path(place) / "dataset.json").exists()
    dataset = Dataset.open(place) if known else None
    return Opened(directory, kind, cache_of(directory), dataset)


def cache_of(directory: Path) -> Path:
    """DIR/view, or a folder for temporary files where DIR cannot be written."""
    cache = directory / "view"
    try:
        cache.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError:
        cache = elsewhere(directory, "view")
    remove_leftovers(cache)
    return cache
