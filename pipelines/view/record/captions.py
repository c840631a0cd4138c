"""Captions side by side: a picture a row, its captions by kind and source, filtered and blind.

    GET /api/captions/sets    the sets (source and kind) with their counts, gates and reasons
    GET /api/captions         a window of an order: the pictures and their captions

Which pictures are shown is an order (pipelines.view.rows) with the filter `captions`, a query of
its own such as "kind=short&status=rejected&text=dog". For looking blind, the captions of a picture
come in an order drawn by seed and key; and by another seed the sentences of each may be shuffled,
since graders favour what stands first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import Route

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.kinds import ALT
from curate.scoring.scorers.sentences import sentences
from curate.store.contract import WRITTEN_BY
from curate.store.dataset import Dataset
from curate.store.scans import sql_text
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.record.caption_rows import caption_rows, captions_of, fetch
from pipelines.view.record.record import dataset_of
from pipelines.view.rows import window_of
from recaption.gates.registry import GATES
from recaption.human.marks import MARK_NAMES, get_ready, marks_of, marks_source

LARGEST_WINDOW = 100
"""Pictures."""
LONGEST_TEXT = 4000
"""Characters of a caption in a window; the rest is on the picture's own page."""
STATUSES = ("ok", "rejected", "failed")
FILTERS = ("kind", "source", "status", "gate", "mark", "text", "now")
"""`now` says nothing but that the order is a new one: marks have come since."""
_FIT = "clip_similarity"
_SENT = (
    *("kind", "source", "sample_index", "text", "status", "reason", "detail", "flags", "words"),
    *("clip_tokens", "t5_tokens", "clip_similarity", "clip_sentence_mean", "clip_sentence_min"),
    *("alt_clip_similarity", "language", "model", "text_sha256", "mark", "markable"),
)


def routes(opened: Opened) -> list[Route]:
    """GET /api/captions and /api/captions/sets; and what an order's filter of captions means."""
    opened.caption_keys = caption_keys
    known: dict[str, tuple[str, list[dict[str, Any]]]] = {}

    def sets(asked: Asked) -> dict[str, Any]:
        dataset, mine = dataset_of(opened), marks_source(opened.by)
        shown = []
        for source in dataset.caption_sources():
            if source != mine:
                mark = _files_mark(dataset, source)
                if known.get(source, ("",))[0] != mark:
                    known[source] = (mark, caption_sets(opened, source))
                shown += known[source][1]
        told = {name: gate.meaning for name, gate in GATES.items()}
        return {"sets": shown, "statuses": STATUSES, "gates": told, "marks": MARK_NAMES}

    def captions(asked: Asked) -> dict[str, Any]:
        get_ready()
        start = asked.whole("start", 0)
        count = asked.whole("count", 20, 1, LARGEST_WINDOW)
        own = [name for name in (_FIT,) if name in opened.tables.columns]
        places, _ = window_of(opened, asked.text("order"), start, count, ["shard", *own])
        rows = caption_rows(
            opened.cursor(),
            dataset_of(opened),
            {place["key"]: place["values"]["shard"] for place in places},
            marks_source(opened.by),
            _named(asked.text("sets")),
        )
        blind = asked.whole("blind", 0) if asked.text("blind") else None
        shuffled = asked.whole("shuffled", 0) if asked.text("shuffled") else None
        told = []
        for place in places:
            listed = [_sent(row, shuffled) for row in rows[place["key"]]]
            for one in listed:  # a picture's own score is that of its alt text
                if one["source"] == ALT and one["sample_index"] == 0 and one[_FIT] is None:
                    one[_FIT] = place["values"].get(_FIT)
            if blind is not None:
                random.Random(f"{blind} {place['key']}").shuffle(listed)
            told.append({**place, "captions": listed})
        return {"rows": told}

    return [get("/api/captions/sets", sets), get("/api/captions", captions)]


def caption_sets(opened: Opened, source: str) -> list[dict[str, Any]]:
    """What a source wrote: a set a kind, with its rows and the gates that spoke. Two scans."""
    cursor = opened.cursor()
    scan = captions_of(cursor, dataset_of(opened), source)
    counted = fetch(
        cursor,
        "SELECT kind, count(*) AS rows, count(*) FILTER (status = 'ok') AS ok "
        f"FROM {scan} GROUP BY kind ORDER BY kind",
    )
    spoken = fetch(
        cursor,
        "SELECT kind, gate, count(*) AS n FROM "
        f"(SELECT kind, unnest(flags) AS gate FROM {scan} "
        f"UNION ALL SELECT kind, reason FROM {scan} WHERE reason IS NOT NULL "
        "AND NOT coalesce(list_contains(flags, reason), false)) "
        "GROUP BY ALL ORDER BY n DESC, gate",
    )
    found = []
    for row in counted:
        gates = {one["gate"]: one["n"] for one in spoken if one["kind"] == row["kind"]}
        found.append({"source": source, **row, "gates": gates})
    return found


def caption_keys(opened: Opened, asked: str) -> str:
    """A SELECT of the keys of pictures that have a caption as is asked for.

    Args:
        asked: a query of FILTERS, all of which one caption has to meet; `mark` is of that caption,
            `gate` one that spoke or the reason why it was not accepted, `text` a part of its text,
            in small letters or large.

    Raises:
        ConfigError: another filter, or a source, kind or status that is not there.
    """
    dataset = dataset_of(opened)
    wanted = {name: value for name, value in parse_qsl(asked) if value}
    for name in wanted:
        if name not in FILTERS:
            raise ConfigError(f"Captions are not filtered by {name!r} ({', '.join(FILTERS)}).")
    mine = marks_source(opened.by)
    sources = [name for name in dataset.caption_sources() if name != mine]
    if (source := wanted.get("source")) is not None:
        if source not in dataset.caption_sources():
            raise ConfigError(f"Nobody called {source!r} wrote captions here.")
        sources = [source]
    limits = ["true"]
    if (kind := wanted.get("kind")) is not None:
        limits.append(f"kind = {sql_text(kind)}")
    if (status := wanted.get("status")) is not None:
        if status not in STATUSES:
            raise ConfigError(f"A caption is {', '.join(STATUSES)}, not {status!r}.")
        limits.append(f"status = {sql_text(status)}")
    if (gate := wanted.get("gate")) is not None:
        limits.append(f"(list_contains(flags, {sql_text(gate)}) OR reason = {sql_text(gate)})")
    if (text := wanted.get("text", "").replace("\0", "")) != "":
        said = "lower(coalesce(text, raw_text))"
        limits.append(f"contains({said}, lower({sql_text(text)}))")
    parts = []
    for name in sources:
        own = [*limits]
        if (mark := wanted.get("mark")) is not None:
            own.append(_marked(dataset, name, mark, mine))
        cursor = opened.cursor()
        keys = f"SELECT key FROM {captions_of(cursor, dataset, name)} WHERE {' AND '.join(own)}"
        if name.startswith(WRITTEN_BY):  # their table is this cursor's; they are few
            told = ", ".join(sql_text(key) for (key,) in cursor.execute(keys).fetchall())
            keys = f"SELECT unnest([{told}]::VARCHAR[]) AS key"
        parts.append(keys)
    return " UNION ".join(parts) or "SELECT NULL AS key WHERE false"


def _marked(dataset: Dataset, source: str, mark: str, mine: str) -> str:
    """SQL: a caption of `source` has this mark of one's own."""
    if mark not in MARK_NAMES:
        raise ConfigError(f"A mark is {', '.join(MARK_NAMES)}, not {mark!r}.")
    about = [
        f"({sql_text(judged.key)}, {sql_text(judged.kind)}, {judged.sample_index})"
        for path in dataset.table_files("captions", mine)
        for judged, said in marks_of(dataset, path.stem, mine).items()
        if (judged.source, said["mark"]) == (source, mark)
    ]
    return f"(key, kind, sample_index) IN ({', '.join(about)})" if about else "false"


def _named(text: str) -> Sequence[tuple[str, str]] | None:
    """`SOURCE/KIND,SOURCE/KIND` as pairs; a source's name may hold no slash."""
    if not text:
        return None
    pairs = (part.partition("/") for part in text.split(","))
    return [(source, kind) for source, _, kind in pairs]


def _sent(row: Mapping[str, Any], shuffled: int | None) -> dict[str, Any]:
    text = row["text"] if row["text"] is not None else row["raw_text"]
    told = {name: row[name] for name in _SENT}
    said = text or ""
    if shuffled is not None:
        said = shuffled_sentences(said, shuffled)
    told["text"] = None if text is None else said[:LONGEST_TEXT]
    told["characters"] = len(said) if len(said) > LONGEST_TEXT else None  # where it is cut
    return told


def shuffled_sentences(text: str, seed: int) -> str:
    """The text's sentences in an order that seed and text decide; one sentence stays as it is."""
    parts = sentences(text)
    if len(parts) < 2:
        return text
    random.Random(f"{seed} {text}").shuffle(parts)
    return " ".join(parts)


def _files_mark(dataset: Dataset, source: str) -> str:
    stats = ((path, path.stat()) for path in dataset.table_files("captions", source))
    return fingerprint([[path.name, one.st_size, one.st_mtime_ns] for path, one in stats])
