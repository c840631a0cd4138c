"""The road of a sample in pictures: from one URL to captions, and on to what the models draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.store.sample_view import SampleTables
from pipelines.report import text
from pipelines.report.data import Inputs
from pipelines.report.kept_copy import kept_copy
from pipelines.report.page import Page, Section
from pipelines.report.pictures import Picture, thumbnail
from pipelines.report.sections.captions import described
from pipelines.report.sections.duplicates import member_label
from pipelines.report.study import shown, study
from pipelines.report.thresholds import thresholds

SHOWN_SCORES = 5
SIDE = 160


@dataclass(frozen=True)
class ScoreLine:
    """One score of the sample, its threshold as text, and whether it passes it."""

    name: str
    value: float
    threshold: str
    passes: bool | None


@dataclass(frozen=True)
class CopyOf:
    """The kept sample that another was dropped for; `picture` is None where it cannot be read."""

    picture: Picture | None
    url: str | None
    row: int
    how: str


@dataclass(frozen=True)
class Journey:
    """One sample, from its row in the list to its captions."""

    url: str | None
    alt_text: str | None
    row: int
    picture: Picture
    original: str
    stored: str
    scores: list[ScoreLine]
    kept: bool | None
    broken_rules: list[str]
    copy_of: CopyOf | None
    captions: list[tuple[str, str]]


@dataclass(frozen=True)
class Drawing:
    """What the arms draw for an evaluation prompt."""

    prompt: str
    target: Picture | None
    arms: list[tuple[str, Picture]]


@dataclass(frozen=True)
class Road:
    """The facts of this section."""

    kept: Journey | None
    dropped: Journey | None
    drawing: Drawing | None
    selection: str | None


def compute(inputs: Inputs) -> Road | None:
    if inputs.dataset is None:
        return None
    kept = _journey(inputs, selected=True)
    dropped = _journey(inputs, selected=False) if inputs.selection is not None else None
    if kept is None and dropped is None:
        return None
    return Road(kept, dropped, _drawing(inputs), inputs.selection)


def _journey(inputs: Inputs, selected: bool) -> Journey | None:
    # A sample with captions of many kinds tells most; among those the choice is seeded.
    condition = "" if inputs.selection is None else f"AND (p.key IS NOT NULL) = {selected}"
    rows = inputs.rows(
        "WITH told AS (SELECT key, count(DISTINCT kind) AS kinds FROM captions "
        "WHERE status = 'ok' AND kind <> 'alt' GROUP BY 1) "
        "SELECT s.* FROM samples s LEFT JOIN selected p ON p.key = s.key "
        "LEFT JOIN told t ON t.key = s.key "
        f"WHERE s.status = 'stored' AND s.shard IN {inputs.shard_list} {condition} "
        "ORDER BY coalesce(t.kinds, 0) DESC, coalesce(length(s.alt_text), 0) < 12, "
        "md5(s.key || ?), s.key LIMIT 1",
        [f"road {inputs.seed}"],
    )
    if not rows:
        return None
    sample = rows[0]
    captions = [
        (row["kind"], row["text"] or "")
        for row in inputs.rows(
            "SELECT kind, text FROM captions WHERE key = ? AND status = 'ok' AND kind <> 'alt' "
            "QUALIFY row_number() OVER (PARTITION BY kind ORDER BY sample_index, model) = 1 "
            "ORDER BY list_position(['short', 'descriptive'], kind) NULLS LAST, kind",
            [sample["key"]],
        )
    ]
    alt = described(captions, sample["alt_text"])
    picture = inputs.pictures({sample["key"]: sample["shard"]}, {sample["key"]: alt}, SIDE)
    if sample["key"] not in picture:
        return None
    lines, broken = _scores(inputs, sample["key"])
    return Journey(
        url=sample["url"],
        alt_text=sample["alt_text"],
        row=sample["row"],
        picture=picture[sample["key"]],
        original=_facts(
            sample["original_width"],
            sample["original_height"],
            sample["original_format"],
            sample["original_bytes"],
        ),
        stored=_facts(sample["width"], sample["height"], sample["format"], None),
        scores=lines,
        kept=selected if inputs.selection is not None else None,
        broken_rules=[] if selected else broken,
        copy_of=None if selected or broken else _copy_of(inputs, sample["key"]),
        captions=captions,
    )


def _copy_of(inputs: Inputs, key: str) -> CopyOf | None:
    kept = kept_copy(inputs, key)
    if kept is None:
        return None
    found = inputs.pictures({kept.key: kept.shard}, {kept.key: "the copy that was kept"}, SIDE // 2)
    how = member_label(kept.method, kept.distance)
    return CopyOf(found.get(kept.key), kept.url, kept.row, how)


def _facts(width: int | None, height: int | None, kind: str | None, size: int | None) -> str:
    parts = [f"{width} × {height} px"] if width and height else []
    parts += [kind] if kind else []
    parts += [text.size(size)] if size else []
    return ", ".join(parts)


def _scores(inputs: Inputs, key: str) -> tuple[list[ScoreLine], list[str]]:
    """The sample's scores, ruled ones first, and the rules that it breaks."""
    found = inputs.rows("SELECT * FROM scores WHERE key = ?", [key])
    values: dict[str, Any] = found[0] if found else {}
    passed = _passed(inputs, key)
    cuts = thresholds(inputs.rules)
    names = [name for name in (*cuts, "clip_similarity", "aesthetic", "nsfw") if name in values]
    lines = []
    for name in list(dict.fromkeys(names))[:SHOWN_SCORES]:
        if values[name] is None:
            continue
        ruled = [passes for rule, passes in passed.items() if name in thresholds([rule])]
        shown = " and ".join(cut.text for cut in cuts.get(name, []))
        lines.append(ScoreLine(name, float(values[name]), shown, all(ruled) if ruled else None))
    return lines, [rule for rule, passes in passed.items() if not passes]


def _passed(inputs: Inputs, key: str) -> dict[str, bool]:
    """Rule -> whether the sample passes it, through the view that selections are made on.

    A rule that looks at a reference set cannot be asked again and is left out, and so are all
    where an old selection names columns or selections that are gone.
    """
    import duckdb

    record = inputs.selection_record
    asked = {
        text: sql
        for text, sql in zip(inputs.rules, record.get("sql", inputs.rules), strict=True)
        if "near_reference" not in sql
    }
    if inputs.dataset is None or not asked or not inputs.dataset.has_table("scores"):
        return {}
    named = [name for name in record.get("rests_on", {}) if not name.startswith("table ")]
    if not set(named) <= set(inputs.dataset.selections()):
        return {}
    tables = SampleTables(inputs.dataset)
    for name in named:
        tables.add_selection(f"in selection {name}", name)
    # Only what the rules name: further columns may cost a join of their own.
    used = [name for name in tables.columns if any(name in sql for sql in asked.values())]
    values = ", ".join(f"({sql}) AS r{index}" for index, sql in enumerate(asked.values()))
    with tables.lock().connection as connection:
        try:
            row = connection.execute(
                f"SELECT {values} FROM ({tables.source(used)}) WHERE key = ?", [key]
            ).fetchone()
        except duckdb.Error:
            return {}
    return dict(zip(asked, map(bool, row), strict=True)) if row else {}


def _drawing(inputs: Inputs) -> Drawing | None:
    found = study(inputs)
    # The first prompt and the first seed, whatever they show.
    rows = [row for row in shown(inputs, found) if row["form"] == found.form] if found else []
    rows = [row for row in rows if row["prompt_id"] == rows[0]["prompt_id"]]
    if not rows:
        return None
    by_arm = {row["arm"]: row for row in reversed(rows)}
    prompt, target = rows[0]["prompt"], rows[0]["target_webp"]
    return Drawing(
        prompt,
        thumbnail(target, f"the scene meant: {prompt}", 96) if target else None,
        [
            (arm, thumbnail(by_arm[arm]["webp"], f"drawn by the arm {arm}", 96))
            for arm in inputs.arms
            if arm in by_arm
        ],
    )


def draw(facts: Road, page: Page) -> Section:
    return page.section("road", "The road of a sample", facts=facts)
