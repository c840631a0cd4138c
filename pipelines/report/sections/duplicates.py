"""Duplicate groups as thumbnails: what was kept, what was dropped for it, how near and by what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.base.duplicate_methods import METHODS
from pipelines.report import text
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture

GROUPS = 6  # shown of each level
MEMBERS = 6  # shown of each group

_MEANINGS = {
    "exact": "the same bytes, or the same pixels once decoded",
    "near": "edited copies: a number is the bits by which their perceptual hashes differ, of 64",
    "embedding": "heavier edits: a number is 1 − cosine of their embeddings",
}


@dataclass(frozen=True)
class Member:
    """A sample of a group. `method` and `distance`: of the pair with the kept sample."""

    picture: Picture
    kept: bool
    method: str
    distance: float | None

    @property
    def label(self) -> str:
        """What stands below the picture."""
        return "kept" if self.kept else member_label(self.method, self.distance)


def member_label(method: str, distance: float | None) -> str:
    """By which method a copy was found, and how far it is from the kept one: "near, 3 bits"."""
    if method == "exact" or distance is None:
        return method
    unit = " bits" if method == "near" else ""
    return f"{method}, {text.number(distance)}{unit}"


@dataclass(frozen=True)
class Group:
    """A group: `size` samples of which some are shown, the kept one first."""

    size: int
    members: list[Member]


@dataclass(frozen=True)
class Method:
    """One level: what search found when it went this far. `pairs`: found by this method."""

    name: str
    meaning: str
    pairs: int
    groups: int
    dropped: int
    largest: int
    shown: list[Group]


def compute(inputs: Inputs) -> list[Method] | None:
    if inputs.dataset is None or not inputs.dataset.has_table("duplicates"):
        return None
    rows = inputs.rows(
        'WITH sizes AS (SELECT method, "group", count(*) AS size, '
        "count(*) FILTER (NOT kept) AS dropped FROM duplicates GROUP BY ALL) "
        "SELECT method, count(*) AS groups, sum(dropped)::BIGINT AS dropped, "
        "max(size) AS largest FROM sizes GROUP BY 1 "
        f"ORDER BY list_position({list(METHODS)}, method) NULLS LAST, method"
    )
    pairs = {
        row["method"]: row["n"]
        for row in inputs.rows("SELECT method, count(*) AS n FROM duplicate_pairs GROUP BY 1")
    }
    return [
        Method(
            row["method"],
            _MEANINGS.get(row["method"], ""),
            pairs.get(row["method"], 0),
            row["groups"],
            row["dropped"],
            row["largest"],
            _groups(inputs, row["method"]),
        )
        for row in rows
    ]


def _groups(inputs: Inputs, level: str) -> list[Group]:
    """A seeded choice of groups with a member that this level's own method brought in.

    Members in a shard that is not read for pictures are not shown.
    """
    if not inputs.picture_shards:
        return []
    ranks = f"list_position({list(METHODS)}, p.method)"
    rows = inputs.rows(
        'WITH here AS (SELECT d.key, d."group", d.kept, d.distance, s.shard FROM duplicates d '
        f"JOIN {inputs.pictured} s USING (key) WHERE d.method = $1), "
        'found AS (SELECT h.key, h."group", arg_min(p.method, ' + ranks + ") AS method, "
        "arg_min(p.distance, " + ranks + ") AS distance FROM here h JOIN duplicate_pairs p "
        'ON p.key_a = least(h.key, h."group") AND p.key_b = greatest(h.key, h."group") '
        'WHERE NOT h.kept GROUP BY h.key, h."group"), '
        "members AS (SELECT h.*, coalesce(f.method, $1) AS by_method, "
        "coalesce(f.distance, h.distance) AS pair_distance FROM here h LEFT JOIN found f "
        'ON f.key = h.key AND f."group" = h."group"), '
        'sizes AS (SELECT "group", count(*) AS size FROM duplicates WHERE method = $1 GROUP BY 1), '
        'chosen AS (SELECT "group" FROM members GROUP BY 1 HAVING count(*) > 1 AND bool_or(kept) '
        "AND bool_or(NOT kept AND by_method = $1) "
        f'ORDER BY md5("group" || $2), 1 LIMIT {GROUPS}) '
        'SELECT m.*, z.size FROM members m JOIN chosen USING ("group") '
        'JOIN sizes z USING ("group") '
        'QUALIFY row_number() OVER (PARTITION BY "group" '
        f"ORDER BY m.kept DESC, m.by_method <> $1, m.pair_distance, m.key) <= {MEMBERS} "
        'ORDER BY md5("group" || $2), "group", m.kept DESC, m.pair_distance, m.key',
        [level, str(inputs.seed)],
    )
    found = inputs.pictures(
        {row["key"]: row["shard"] for row in rows},
        {row["key"]: _told(row) for row in rows},
        side=96,
    )
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["group"], []).append(row)
    return [
        Group(
            members[0]["size"],
            [
                Member(found[row["key"]], row["kept"], row["by_method"], row["pair_distance"])
                for row in members
                if row["key"] in found
            ],
        )
        for members in grouped.values()
    ]


def _told(row: dict[str, Any]) -> str:
    return "the kept sample of its group" if row["kept"] else f"{row['by_method']} duplicate of it"


def draw(facts: list[Method], page: Page) -> Section:
    return page.section("duplicates", "Duplicates", facts=facts)
