"""Which copies to drop AMONG the samples that a selection's other rules let through.

Duplicate search says once what is near what (the table duplicate_pairs). Which copy to keep depends
on who else stays: if the best copy fails a rule, the next best takes its place, and no group is
lost. So the keep rule runs here, after the other rules, on the pairs alone: greedy by quality, and
a sample is dropped only if it is near a KEPT one (curate.duplicates.tables).

Exact copies share every pair of theirs: search looks at one of them for all, so pairs are lifted to
groups of equals first, and the best of a group that passes stands for it.

Memory and time grow with the pairs, about 60 bytes each, not with the dataset.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.duplicate_methods import METHODS, WIDEST
from curate.base.errors import ConfigError
from curate.duplicates.tables import keep_best
from curate.selection.funnel import RuleCount
from curate.selection.rules import split_rules
from curate.store.finite import FINITE
from curate.store.sample_view import SEMDEDUP, SampleTables

if TYPE_CHECKING:
    import duckdb


# Of equal copies the larger is better, then the one whose text fits.
_QUALITY = ("width * height", "clip_similarity")


@dataclass(frozen=True)
class Copies:
    """Samples with a near one, in order of quality (a row's number is its rank), and their pairs.

    `total`: N, how many there are; the table `_copies` (rank, key) names them. `pairs` (P, 2)
    rows; `exact` (P,): whether the two are equal. `methods` and `quality`: what they rest on.
    """

    total: int
    pairs: NDArray[np.int64]
    exact: NDArray[np.bool_]
    methods: tuple[str, ...] = ()
    quality: tuple[str, ...] = ()

    def step(self, ranks: NDArray[np.int64], left: int) -> tuple[RuleCount, NDArray[np.int64]]:
        """The keep rule as a step of the funnel, and the rows that it drops.

        Args:
            ranks: rows that the other rules let through.
            left: how many samples they let through, those without a near one included.
        """
        among = np.zeros(self.total, bool)
        among[ranks] = True
        dropped = np.flatnonzero(self.dropped(among))
        text = f"best of its copies ({self.level or 'no pair on record'})"
        return RuleCount(text, self._alone, 0, len(dropped), 0, left - len(dropped)), dropped

    @property
    def level(self) -> str | None:
        """The widest method whose pairs count."""
        return self.methods[-1] if self.methods else None

    def record(self) -> dict[str, Any]:
        """For the selection's record."""
        return {
            "level": self.level,
            "methods": list(self.methods),
            "quality": list(self.quality),
        }

    @cached_property
    def _alone(self) -> int:
        return int(self.dropped(np.ones(self.total, bool)).sum())

    def dropped(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,): the rows of `among` (N,) that the keep rule drops where only those take part."""
        if not self.total:
            return np.zeros(0, bool)
        group = _groups(self.pairs[self.exact], self.total)
        # Rows stand in order of quality, so the first row of a group that takes part is its best.
        rows = np.flatnonzero(among)
        groups, place = np.unique(group[rows], return_index=True)
        best = rows[place]
        position = np.full(self.total, -1)
        position[groups] = np.arange(len(groups))
        lifted = position[group[self.pairs[~self.exact]]]
        lifted = lifted[(lifted >= 0).all(axis=1) & (lifted[:, 0] != lifted[:, 1])]
        rank = np.empty(len(best), np.int64)
        rank[np.argsort(best)] = np.arange(len(best))
        kept = keep_best(lifted, rank) == np.arange(len(best))
        dropped = among.copy()
        dropped[best[kept]] = False
        return dropped


def _groups(pairs: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """(N,) the first row of the group of equals that each row is in.

    Every round lowers a pair's labels to the smaller one and lets labels point to the end of their
    chain, so that the rounds are few even where the pairs of a group form a path.
    """
    group = np.arange(total)
    while True:
        ends = group[pairs]
        low = ends.min(axis=1)
        if (ends[:, 0] == ends[:, 1]).all():
            return group
        for side in (0, 1):
            np.minimum.at(group, ends[:, side], low)
            np.minimum.at(group, pairs[:, side], low)
        while (group != group[group]).any():
            group = group[group]


def levels(connection: duckdb.DuckDBPyConnection, level: str) -> tuple[str, ...]:
    """The methods whose pairs count at `level` ("widest": all that search found pairs by).

    Raises:
        ConfigError: there is no such level.
    """
    found = {
        row[0]
        for row in connection.execute("SELECT DISTINCT method FROM duplicate_pairs").fetchall()
    }
    if level == WIDEST:
        return tuple(method for method in METHODS if method in found)
    if level == SEMDEDUP:
        return METHODS[0], SEMDEDUP
    if level not in METHODS:
        raise ConfigError(
            f"There is no level of duplicates {level!r}; levels are {', '.join(METHODS)}, "
            f"{SEMDEDUP}, or {WIDEST} for the widest one that was searched."
        )
    return METHODS[: METHODS.index(level) + 1]


def find_copies(tables: SampleTables, level: str, quality: Sequence[str] = ()) -> Copies:
    """Read the pairs of `level`; leaves the table `_copies` (rank, key) on the connection.

    Args:
        level: see `levels`.
        quality: SQL expressions over a sample's columns, larger for the better copy; later ones
            break ties, and the key does last. By default the larger picture, then the higher
            clip_similarity where there is one.

    Raises:
        ConfigError: no such level, or a quality expression that does not work.
    """
    import duckdb

    connection = tables.connection
    methods = levels(connection, level)
    quality = quality or [part for part in _QUALITY if _known(part, tables.columns)]
    named = ", ".join(f"'{method}'" for method in methods) or "''"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _pairs AS SELECT method = '{METHODS[0]}' AS exact, "
        f"key_a, key_b FROM duplicate_pairs WHERE method IN ({named})"
    )
    used = [
        name
        for part in quality
        for rule in split_rules(connection, part, tables.columns)
        for name in rule.columns
    ]
    order = ", ".join([*(f"{FINITE}({part}) DESC NULLS LAST" for part in quality), "key"])
    try:
        connection.execute(
            "CREATE OR REPLACE TABLE _copies AS "
            "WITH members AS (SELECT key_a AS key FROM _pairs UNION SELECT key_b FROM _pairs) "
            f"SELECT row_number() OVER (ORDER BY {order}) - 1 AS rank, key "
            f"FROM ({tables.source(used)}) SEMI JOIN members USING (key)"
        )
    except duckdb.Error as error:
        raise ConfigError(
            f"The quality {', '.join(quality)} does not work: {str(error).splitlines()[0]}"
        ) from error
    counted = connection.execute("SELECT count(*) FROM _copies").fetchall()[0][0]
    # A pair of a sample that is not scored (yet) concerns nobody.
    found = connection.execute(
        "SELECT a.rank AS a, b.rank AS b, exact FROM _pairs "
        "JOIN _copies a ON a.key = key_a JOIN _copies b ON b.key = key_b"
    ).fetchnumpy()
    pairs = np.stack([np.asarray(found["a"], np.int64), np.asarray(found["b"], np.int64)], axis=1)
    exact = np.asarray(found["exact"], bool)
    return Copies(int(counted), pairs, exact, methods, tuple(quality))


def ranks_of(connection: duckdb.DuckDBPyConnection, passing: str) -> NDArray[np.int64]:
    """(R,) the ranks, in any order, that the SQL `passing` yields in its column `rank`."""
    return np.asarray(connection.execute(passing).fetchnumpy()["rank"], np.int64)


def put_ranks(connection: duckdb.DuckDBPyConnection, table: str, ranks: NDArray[np.int64]) -> None:
    """Make the temporary table `table` (rank)."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} (rank BIGINT)")
    # By hand: DuckDB would import pandas to register an Arrow table.
    for part in np.split(ranks, range(1 << 17, len(ranks), 1 << 17)):
        connection.execute(f"INSERT INTO {table} SELECT unnest($1)", [part.tolist()])


def _known(expression: str, columns: Sequence[str]) -> bool:
    return set(re.findall(r"[a-z_]+", expression)) <= set(columns)
