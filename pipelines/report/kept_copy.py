"""Of which kept sample a dropped one is a copy."""

from __future__ import annotations

from dataclasses import dataclass

from curate.base.duplicate_methods import METHODS
from curate.store.scans import sql_text
from pipelines.report.data import Inputs


@dataclass(frozen=True)
class KeptCopy:
    """The kept sample, and the pair that dropped the other one for it."""

    key: str
    shard: str
    url: str | None
    row: int
    method: str
    distance: float | None


def kept_copy(inputs: Inputs, key: str) -> KeptCopy | None:
    """The selected sample for which the followed selection dropped `key`; None where it did not.

    As curate.selection.keep_among does it: a pair that concerns one of several equal pictures
    concerns them all. Of several kept ones the surest method and the least distance count.

    Cost: a few scans of duplicate_pairs.
    """
    dropped = inputs.selection_record.get("duplicates") or {}
    methods = [str(method) for method in dropped.get("methods", [])]
    if not methods:
        return None
    listed = ", ".join(map(sql_text, methods))
    rank = f"list_position({list(METHODS)}, method)"
    rows = inputs.rows(
        "WITH RECURSIVE both_ways AS ("
        "SELECT key_a AS one, key_b AS other, method, distance FROM duplicate_pairs "
        f"WHERE method IN ({listed}) UNION ALL "
        f"SELECT key_b, key_a, method, distance FROM duplicate_pairs WHERE method IN ({listed})), "
        "mine AS (SELECT $1 AS key UNION SELECT other FROM mine JOIN both_ways ON one = mine.key "
        f"WHERE method = '{METHODS[0]}'), "
        # Who is near me or one of my equals, and who equals those; my own equals are nearest.
        f"near AS (SELECT other AS key, {rank} AS rank, method, distance FROM both_ways "
        f"JOIN mine ON one = mine.key UNION SELECT other, near.rank, near.method, near.distance "
        f"FROM near JOIN both_ways ON one = near.key WHERE both_ways.method = '{METHODS[0]}') "
        'SELECT s.key, s.shard, s.url, s."row", near.method, near.distance FROM near '
        "JOIN selected USING (key) JOIN samples s ON s.key = near.key WHERE s.key <> $1 "
        "ORDER BY near.rank, near.distance, s.key LIMIT 1",
        [key],
    )
    return KeptCopy(**rows[0]) if rows else None
