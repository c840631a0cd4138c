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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.base.duplicate_methods import METHODS, WIDEST
from curate.base.errors import ConfigError
from curate.duplicates.tables import keep_best
from curate.selection.rules import split_rules
from curate.store.finite import FINITE
from curate.store.sample_view import SEMDEDUP, SampleTables

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Copies:
    """Samples with a near one, in order of quality (a row's number is its rank), and their pairs.

    `passes` (N,): whether the other rules let the sample through. `pairs` (P, 2) rows; `exact`
    (P,): whether the two are equal.
    """

    passes: NDArray[np.bool_]
    pairs: NDArray[np.int64]
    exact: NDArray[np.bool_]

    def dropped(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,): the rows of `among` (N,) that the keep rule drops where only those take part."""
        total = len(among)
        if not total:
            return np.zeros(0, bool)
        group = _groups(self.pairs[self.exact], total)
        # Rows stand in order of quality, so the first row of a group that takes part is its best.
        rows = np.flatnonzero(among)
        groups, place = np.unique(group[rows], return_index=True)
        best = rows[place]
        position = np.full(total, -1)
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


def find_copies(
    tables: SampleTables, methods: Sequence[str], quality: Sequence[str], passed: str
) -> Copies:
    """Read the pairs of `methods`; leaves the table `_copies` (rank, key) on the connection.

    Args:
        quality: SQL expressions over a sample's columns, larger for the better copy; later ones
            break ties, and the key does last.
        passed: SQL for a table with `key` and the boolean `passes`, a row a stored sample.

    Raises:
        ConfigError: a quality expression that does not work.
    """
    import duckdb

    connection = tables.connection
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
            "CREATE OR REPLACE TEMP TABLE _copies AS "
            "WITH members AS (SELECT key_a AS key FROM _pairs UNION SELECT key_b FROM _pairs), "
            f"mine AS (SELECT * FROM ({tables.source(used)}) SEMI JOIN members USING (key)) "
            f"SELECT row_number() OVER (ORDER BY {order}) - 1 AS rank, key, passes "
            f"FROM mine JOIN ({passed}) USING (key)"
        )
    except duckdb.Error as error:
        raise ConfigError(
            f"The quality {', '.join(quality)} does not work: {str(error).splitlines()[0]}"
        ) from error
    rows = connection.execute("SELECT rank, passes FROM _copies").fetchnumpy()
    passes = np.zeros(len(rows["rank"]), bool)
    passes[rows["rank"]] = np.ma.filled(rows["passes"], False)
    # A pair of a sample that is not scored (yet) concerns nobody.
    found = connection.execute(
        "SELECT a.rank AS a, b.rank AS b, exact FROM _pairs "
        "JOIN _copies a ON a.key = key_a JOIN _copies b ON b.key = key_b"
    ).fetchnumpy()
    pairs = np.stack([np.asarray(found["a"], np.int64), np.asarray(found["b"], np.int64)], axis=1)
    return Copies(passes, pairs, np.asarray(found["exact"], bool))
