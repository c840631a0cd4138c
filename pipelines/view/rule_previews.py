"""Previews of the rules that the page asks for: the last ones are kept, stale ones give way.

A page that moves a slider asks many times a second. Only the newest question of a page counts: the
query of the one before is interrupted. A rule that takes longer than `SECONDS` is refused.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from curate.base.duplicate_methods import WIDEST
from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from curate.search.passing import within
from curate.selection.keep_among import Copies, find_copies
from curate.selection.preview import Preview, preview
from curate.selection.settings import SelectSettings
from curate.selection.work_out import refuse_unscored
from curate.store.sample_view import SampleTables
from pipelines.view.opened import Opened
from pipelines.view.rule_sliders import Histogram, histogram

if TYPE_CHECKING:
    import duckdb

SECONDS = 30.0
"""A rule of comparisons takes a hundredth; one that takes this long was not meant."""
_KEPT = 16
_PAGES = 64
_HISTOGRAMS = 256


_STALE = "A newer rule has taken its place."


@dataclass
class _Question:
    """A question that is being answered, by the queries of one cursor."""

    cursor: duckdb.DuckDBPyConnection
    stale: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class Previews:
    """Previews over what is opened. Safe to use from many threads."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._mark = ""
        self._copies: Copies | None = None
        self._histograms: dict[str, Histogram | None] = {}
        self._made: OrderedDict[tuple[str, bool], Preview] = OrderedDict()
        self._names = count()
        self._making = threading.Lock()
        self._asking: OrderedDict[str, _Question] = OrderedDict()
        self._looking = threading.Lock()

    @contextmanager
    def ask(
        self, where: str, keep_duplicates: bool, page: str = ""
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, Preview]]:
        """A cursor and the preview of a rule, for one question.

        Args:
            page: whose question it is: an unfinished one of the same page ends. "" is nobody's.

        Raises:
            ConfigError: a bad rule, one that takes too long, or a newer question came.
        """
        import duckdb

        tables = self._opened.tables
        sample_tables = tables.sample_tables()
        sample_tables.read_copy("copied.sample", list(tables.columns))
        cursor = sample_tables.connection
        mine = _Question(cursor)
        self._take_over(page, mine)
        try:
            with within(cursor, SECONDS):
                yield cursor, self._of(sample_tables, tables.mark, where, keep_duplicates, mine)
        except (ConfigError, duckdb.Error) as error:
            if mine.stale:
                raise ConfigError(_STALE) from error
            raise
        finally:
            with self._looking:
                if self._asking.get(page) is mine:
                    del self._asking[page]
                mine.ended.set()
                cursor.close()

    def histogram(
        self, cursor: duckdb.DuckDBPyConnection, shown: Preview, expression: str
    ) -> Histogram | None:
        """Of an expression over the columns of a preview; the same until the tables change.

        None for what is no number, or is one only where another part of the rule looks first, as
        in `CASE WHEN ... THEN alt_text::INT > 5 END`.
        """
        import duckdb

        known = self._histograms  # of the tables of this question, whatever comes meanwhile
        if expression not in known:
            if len(known) > _HISTOGRAMS:
                known.clear()
            try:
                known[expression] = histogram(cursor, expression, shown.source)
            except (duckdb.DataError, duckdb.InvalidInputException):
                known[expression] = None
        return known[expression]

    def _of(
        self, tables: SampleTables, mark: str, where: str, keep_duplicates: bool, mine: _Question
    ) -> Preview:
        with self._making:
            if mine.stale:
                raise ConfigError(_STALE)
            if self._mark != mark:
                # What was made went with the connection of before.
                self._made, self._histograms, self._mark = OrderedDict(), {}, ""
                refuse_unscored(tables)
                self._copies = find_copies(tables, WIDEST)
                self._mark = mark
            assert self._copies is not None
            key = where, keep_duplicates
            if key not in self._made:
                settings = load_settings(
                    SelectSettings, None, {"where": where, "keep_duplicates": keep_duplicates}
                )
                name = f"_dropped_{next(self._names)}"
                self._made[key] = preview(tables, settings, self._copies, name)
                while len(self._made) > _KEPT:
                    _, old = self._made.popitem(last=False)
                    if old.dropped is not None:
                        tables.connection.execute(f"DROP TABLE IF EXISTS {old.dropped}")
            self._made.move_to_end(key)
            return self._made[key]

    def _take_over(self, page: str, mine: _Question) -> None:
        """Have the question before of this page end."""
        if not page:
            return
        with self._looking:
            before = self._asking.pop(page, None)
            self._asking[page] = mine
            while len(self._asking) > _PAGES:
                self._asking.popitem(last=False)
        if before is not None:
            before.stale = True
            while not before.ended.wait(0.01):  # it may be between two queries
                with self._looking:
                    if not before.ended.is_set():
                        before.cursor.interrupt()
