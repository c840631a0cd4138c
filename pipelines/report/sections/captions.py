"""Captions beside their picture, and what the gates accepted and rejected."""

from __future__ import annotations

from dataclasses import dataclass

from curate.store.scans import sql_text
from pipelines.report import text
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture

SHOWN = 6
REJECTED = 12  # at most two a reason


@dataclass(frozen=True)
class Kind:
    """The captions of one kind by one model."""

    kind: str
    model: str | None
    total: int
    accepted: int
    rejected: int
    failed: int
    cut: int  # ended by the token limit
    words: tuple[float | None, float | None, float | None]  # 5%, median, 95% of accepted ones


@dataclass(frozen=True)
class Reason:
    """Why captions were not accepted."""

    kind: str
    status: str
    reason: str
    total: int


@dataclass(frozen=True)
class Shown:
    """A picture with its texts: kind -> caption. The alt text is as it came, or None."""

    picture: Picture
    alt_text: str | None
    captions: list[tuple[str, str]]


@dataclass(frozen=True)
class Rejected:
    """A caption that a gate rejected."""

    picture: Picture
    kind: str
    raw_text: str | None
    reason: str


@dataclass(frozen=True)
class Captions:
    """The facts of this section."""

    kinds: list[Kind]
    reasons: list[Reason]
    shown: list[Shown]
    rejected: list[Rejected]


def compute(inputs: Inputs) -> Captions | None:
    if inputs.dataset is None or not inputs.dataset.has_table("captions"):
        return None
    # What people wrote names the caption or the file that it is of; they are told by their source.
    written = " UNION ALL BY NAME ".join(
        f"SELECT *, {sql_text(source)} AS source "
        f"FROM {inputs.dataset.scan('captions', source, union_by_name=True)}"
        for source in inputs.dataset.caption_sources()
    )
    kinds = inputs.rows(
        "SELECT kind, CASE engine WHEN 'none' THEN NULL WHEN 'human' THEN source ELSE model END "
        "AS model, "
        "count(*) AS total, count(*) FILTER (status = 'ok') AS accepted, "
        "count(*) FILTER (status = 'rejected') AS rejected, "
        "count(*) FILTER (status = 'failed') AS failed, "
        "count(*) FILTER (finish_reason = 'length') AS cut, "
        "quantile_cont(words, [0.05, 0.5, 0.95]) FILTER (status = 'ok') AS words "
        f"FROM ({written}) GROUP BY 1, 2 "
        "ORDER BY list_position(['alt', 'short', 'descriptive'], kind) NULLS LAST, kind, model"
    )
    reasons = inputs.rows(
        "SELECT kind, status, coalesce(reason, '(none given)') AS reason, count(*) AS total "
        "FROM captions WHERE status <> 'ok' GROUP BY ALL ORDER BY total DESC, 1, 2, 3 LIMIT 20"
    )
    return Captions(
        kinds=[
            Kind(**{**row, "words": tuple(row["words"] or (None, None, None))}) for row in kinds
        ],
        reasons=[Reason(**row) for row in reasons],
        shown=_shown(inputs),
        rejected=_rejected(inputs),
    )


def _shown(inputs: Inputs) -> list[Shown]:
    # Samples of the selection with the most kinds of caption, in a seeded order.
    rows = inputs.rows(
        "WITH told AS (SELECT key, count(DISTINCT kind) AS kinds FROM captions "
        "WHERE status = 'ok' GROUP BY 1) "
        "SELECT s.key, s.shard, s.alt_text FROM told JOIN samples s USING (key) "
        "LEFT JOIN selected ON selected.key = s.key "
        f"WHERE s.status = 'stored' AND s.shard IN {inputs.shard_list} "
        "ORDER BY selected.key IS NULL, kinds DESC, s.alt_text IS NULL, md5(s.key || ?), s.key "
        f"LIMIT {SHOWN}",
        [str(inputs.seed)],
    )
    texts: dict[str, list[tuple[str, str]]] = {}
    for caption in inputs.rows(
        "SELECT key, kind, text FROM captions WHERE status = 'ok' AND kind <> 'alt' "
        "AND list_contains(?, key) QUALIFY row_number() "
        "OVER (PARTITION BY key, kind ORDER BY sample_index, model) = 1 "
        "ORDER BY list_position(['short', 'descriptive'], kind) NULLS LAST, kind",
        [[row["key"] for row in rows]],
    ):
        texts.setdefault(caption["key"], []).append((caption["kind"], caption["text"] or ""))
    found = inputs.pictures(
        {row["key"]: row["shard"] for row in rows},
        {row["key"]: described(texts.get(row["key"], []), row["alt_text"]) for row in rows},
        side=160,
    )
    return [
        Shown(found[row["key"]], row["alt_text"], texts.get(row["key"], []))
        for row in rows
        if row["key"] in found
    ]


def described(captions: list[tuple[str, str]], alt_text: str | None) -> str:
    """The longest caption as the text for somebody who cannot see the picture."""
    longest = max((caption for _, caption in captions), key=len, default="")
    return (longest or alt_text or "a stored picture without a text")[:300]


def _rejected(inputs: Inputs) -> list[Rejected]:
    rows = inputs.rows(
        "SELECT c.key, s.shard, c.kind, c.raw_text, coalesce(c.reason, '(none given)') AS reason "
        "FROM captions c JOIN samples s USING (key) WHERE c.status = 'rejected' "
        f"AND c.kind <> 'alt' AND s.shard IN {inputs.shard_list} "
        "QUALIFY row_number() OVER (PARTITION BY c.reason ORDER BY md5(c.key || ?)) <= 2 "
        "ORDER BY count(*) OVER (PARTITION BY c.reason) DESC, c.reason, md5(c.key || ?), c.kind "
        f"LIMIT {REJECTED}",
        [str(inputs.seed), str(inputs.seed)],
    )
    found = inputs.pictures(
        {row["key"]: row["shard"] for row in rows},
        {row["key"]: f"picture of a rejected {text.words(row['kind'])} caption" for row in rows},
        side=96,
    )
    return [
        Rejected(found[row["key"]], row["kind"], row["raw_text"], row["reason"])
        for row in rows
        if row["key"] in found
    ]


def draw(facts: Captions, page: Page) -> Section:
    return page.section("captions", "Captions beside their picture", facts=facts)
