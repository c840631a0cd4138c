"""Duplicate groups as thumbnails: what was kept, what was dropped for it, and how near it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.report.inputs import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture

GROUPS = 4  # shown of each method
MEMBERS = 6  # shown of each group

# What a distance counts, by method (see curate.dataset).
UNITS = {"exact": "", "near": "bits of Hamming distance", "embedding": "1 − cosine"}


@dataclass(frozen=True)
class Member:
    """A sample of a group."""

    picture: Picture
    kept: bool
    distance: float | None


@dataclass(frozen=True)
class Group:
    """A group: `size` samples of which some are shown, the kept one first."""

    size: int
    members: list[Member]


@dataclass(frozen=True)
class Method:
    """What one method found."""

    name: str
    groups: int
    dropped: int
    largest: int
    unit: str
    shown: list[Group]


def compute(inputs: Inputs) -> list[Method] | None:
    if inputs.dataset is None or not inputs.dataset.has_table("duplicates"):
        return None
    rows = inputs.rows(
        'WITH sizes AS (SELECT method, "group", count(*) AS size, '
        "count(*) FILTER (NOT kept) AS dropped FROM duplicates GROUP BY ALL) "
        "SELECT method, count(*) AS groups, sum(dropped)::BIGINT AS dropped, "
        "max(size) AS largest FROM sizes GROUP BY 1 "
        "ORDER BY list_position(['exact', 'near', 'embedding'], method) NULLS LAST, method"
    )
    return [
        Method(
            row["method"],
            row["groups"],
            row["dropped"],
            row["largest"],
            UNITS.get(row["method"], "distance"),
            _groups(inputs, row["method"]),
        )
        for row in rows
    ]


def _groups(inputs: Inputs, method: str) -> list[Group]:
    # A seeded choice of groups; members in a shard that is not read for pictures are not shown.
    rows = inputs.rows(
        'WITH here AS (SELECT d.key, d."group", d.kept, d.distance, s.shard FROM duplicates d '
        f"JOIN samples s USING (key) WHERE d.method = ? AND s.shard IN {inputs.shard_list}), "
        'sizes AS (SELECT "group", count(*) AS size FROM duplicates WHERE method = ? GROUP BY 1), '
        'chosen AS (SELECT "group" FROM here GROUP BY 1 HAVING count(*) > 1 '
        f'ORDER BY md5("group" || ?), 1 LIMIT {GROUPS}) '
        'SELECT h.*, z.size FROM here h JOIN chosen USING ("group") JOIN sizes z USING ("group") '
        'QUALIFY row_number() OVER (PARTITION BY "group" '
        f"ORDER BY h.kept DESC, h.distance, h.key) <= {MEMBERS} "
        'ORDER BY md5("group" || ?), "group", h.kept DESC, h.distance, h.key',
        [method, method, str(inputs.seed), str(inputs.seed)],
    )
    found = inputs.pictures(
        {row["key"]: row["shard"] for row in rows},
        {row["key"]: "kept" if row["kept"] else "near-duplicate" for row in rows},
        side=96,
    )
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["group"], []).append(row)
    return [
        Group(
            members[0]["size"],
            [
                Member(found[row["key"]], row["kept"], row["distance"])
                for row in members
                if row["key"] in found
            ],
        )
        for members in grouped.values()
    ]


def draw(facts: list[Method], page: Page) -> Section:
    return page.section("duplicates", "Duplicates", facts=facts)
