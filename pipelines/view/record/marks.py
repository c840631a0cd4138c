"""Marks of captions from the page: stored at once, given back for undo, and as JSON lines.

POST /api/marks          {key, kind, source, sample_index, text_sha256, mark, text}
GET  /api/marks          how many there are of each
GET  /api/marks.jsonl    all of them, for review elsewhere
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.routing import Route

from curate.base.errors import ConfigError
from curate.store.scans import parquet_rows
from pipelines.view.answers import Asked, get, plain, post
from pipelines.view.opened import Opened
from pipelines.view.record.caption_rows import caption_rows
from pipelines.view.record.record import dataset_of, shard_of
from recaption.human.marks import MARK_NAMES, Judged, all_marks, marks_source, set_mark


def routes(opened: Opened) -> list[Route]:
    """POST and GET /api/marks."""
    writing = threading.Lock()  # the dataset's own lock refuses, this one waits

    def mark(given: Mapping[str, Any]) -> dict[str, Any]:
        judged, seen = _judged(given)
        named = given.get("mark")
        if named is not None and named not in MARK_NAMES:
            raise ConfigError(f"A mark is {', '.join(MARK_NAMES)}, or null to take it away.")
        text = given.get("text")
        if text is not None and not isinstance(text, str):
            raise ConfigError("The text of an edited caption is a text.")
        dataset, mine = dataset_of(opened), marks_source(opened.by)
        shard = shard_of(opened, judged.key)
        with writing:
            before = set_mark(dataset, shard, judged, named, text, seen, opened.by)
            rows = caption_rows(opened.cursor(), dataset, {judged.key: shard}, mine)[judged.key]
        now = next((row["mark"] for row in rows if _is(row, judged)), None)
        return {"before": before, "mark": now}

    def counts(asked: Asked) -> dict[str, int]:
        dataset = dataset_of(opened)
        found: Counter[str] = Counter(dict.fromkeys(MARK_NAMES, 0))
        mine = marks_source(opened.by)
        for path in dataset.table_files("captions", mine):
            for flags in parquet_rows(path, ["flags"])["flags"].to_pylist():
                found.update(flags)
        return dict(found)

    def lines(asked: Asked) -> StreamingResponse:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"marks-{opened.directory.name}.jsonl")
        return StreamingResponse(
            _lines(opened),
            media_type="application/x-ndjson",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return [
        post("/api/marks", mark),
        get("/api/marks", counts),
        get("/api/marks.jsonl", lines),
    ]


def _judged(given: Mapping[str, Any]) -> tuple[Judged, str | None]:
    key, kind, source = (given.get(name) for name in ("key", "kind", "source"))
    index, seen = given.get("sample_index", 0), given.get("text_sha256")
    texts = [text for text in (key, kind, source) if isinstance(text, str) and text.isprintable()]
    if len(texts) < 3 or type(index) is not int or not 0 <= index < 2**31:
        raise ConfigError("A mark names key, kind, source and sample_index of its caption.")
    if seen is not None and not isinstance(seen, str):
        raise ConfigError("text_sha256 is a text, or null for a caption without one.")
    return Judged(str(key), str(kind), str(source), index), seen


def _is(row: Mapping[str, Any], judged: Judged) -> bool:
    return all(row[name] == value for name, value in vars(judged).items())


def _lines(opened: Opened) -> Iterator[str]:
    for row in all_marks(dataset_of(opened)):
        yield json.dumps(plain(row), ensure_ascii=False) + "\n"
