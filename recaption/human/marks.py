"""What people say of stored captions: good, bad, or better in their own words.

A mark is a caption of kind `human` (recaption.human.rows): `good` and `edited` are accepted ones,
`bad` is a rejected one, so export, blends, trainers and `caplab captions` take them as any other
kind. Who marks is the source, human-NAME; its tables hold rows of marked pictures alone.

Each mark rewrites the table of one shard under the dataset's lock for this source, and returns once
the file is on disk: a process that is killed loses none that was answered, and leaves no half of
one. Cost: a read and a write of the shard's marks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

import pyarrow.compute as pc

from curate.base.errors import ConfigError, DatasetError
from curate.store.captions import CaptionRef, read_made_from, text_mark
from curate.store.contract import WRITTEN_BY
from curate.store.dataset import Dataset
from curate.store.dataset_card import write_dataset_card
from curate.store.holes import finished_tables, note_finished
from curate.store.lock import hold
from recaption.human.rows import HumanCaption, Mark, source_of, store_human
from recaption.measure.token_counts import CACHED, TokenCounter

MARK_NAMES: tuple[str, ...] = get_args(Mark)
NOBODY = "marks"
"""Who marks where nobody says."""
LONGEST = 20_000
"""Characters of a caption that a person may write."""
WAIT = 3.0
"""Seconds for which a mark waits until another one is stored."""


@dataclass(frozen=True)
class Judged:
    """The caption that a mark is about."""

    key: str
    kind: str
    source: str
    sample_index: int


def marks_source(who: str | None) -> str:
    """The source of a person's marks; ConfigError for a name that cannot be a folder."""
    return source_of(WRITTEN_BY, who or NOBODY)


@lru_cache(maxsize=1)
def get_ready() -> threading.Thread:
    """Load what counts a mark's tokens beside what goes on, so that the first one need not wait."""
    thread = threading.Thread(target=lambda: TokenCounter(CACHED).clip(["a"]), daemon=True)
    thread.start()
    return thread


def said_text(caption: Mapping[str, Any]) -> str | None:
    """What a person reads of a caption: its text, or of one not accepted what was said."""
    text = caption["text"] if caption["text"] is not None else caption["raw_text"]
    return None if text is None else str(text)


def judged_by(row: Mapping[str, Any]) -> Judged | None:
    """The caption that a row of a human source is a mark of; None for one written from nothing."""
    refs = read_made_from(row["prompt_variables"])
    if not refs or row["flags"] not in [[name] for name in MARK_NAMES]:
        return None
    return Judged(row["key"], refs[0].kind, refs[0].source, refs[0].sample_index)


def set_mark(
    dataset: Dataset,
    shard: str,
    judged: Judged,
    mark: Mark | None,
    text: str | None = None,
    seen: str | None = None,
    who: str | None = None,
) -> dict[str, Any] | None:
    """Mark a caption, or take its mark away; a person's last mark of a caption is what counts.

    Args:
        shard: where the picture lies.
        mark: None takes the mark away.
        text: what the person wrote, for "edited".
        seen: `text_mark` of the text that the person saw; None does not ask.
        who: the person, a name that can be a folder's.

    Returns:
        The mark before (`mark`, `text`), None where there was none.

    Raises:
        ConfigError: there is no such caption, it has no text to be called good or bad, or what was
            written is no caption.
        DatasetError: the caption is another one by now, somebody else writes this person's marks,
            or the table cannot be read or written.
    """
    source = marks_source(who)
    if judged.source == source:
        raise ConfigError("This is your own mark; mark the caption that it is about.")
    # A mark goes whatever became of its caption.
    new = [] if mark is None else [_marked(dataset, shard, judged, mark, text, seen)]
    with _turn(dataset, source):
        before = marks_of(dataset, shard, source).get(judged)
        if mark is None and before is None:
            return None
        gone = [(judged.key, before["sample_index"])] if before and mark is None else []
        store_human(dataset, source, shard, new, TokenCounter(CACHED), gone)
        if shard not in finished_tables(dataset).get(f"captions/{source}", ()):
            # From here on a table that is lost is missed.
            note_finished(dataset, f"captions/{source}")
            write_dataset_card(dataset)
    return None if before is None else {"mark": before["mark"], "text": before["text"]}


def marks_of(dataset: Dataset, shard: str, source: str) -> dict[Judged, dict[str, Any]]:
    """Judged caption -> `told` of its mark, of one shard."""
    if not dataset.has_shard("captions", shard, source):
        return {}
    rows = dataset.read_table("captions", shard, source).to_pylist()
    return {judged: told(row) for row in rows if (judged := judged_by(row)) is not None}


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """mark, text, sample_index, created_at, and text_sha256 and judged_text as they were seen."""
    return {
        "mark": row["flags"][0],
        "text": row["text"],
        "sample_index": row["sample_index"],
        "created_at": row["created_at"],
        "text_sha256": read_made_from(row["prompt_variables"])[0].text_sha256,
        "judged_text": row["raw_text"],
    }


def all_marks(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Every mark of everybody, a shard at a time, for review elsewhere."""
    for source in human_sources(dataset):
        who = source.removeprefix(WRITTEN_BY)
        for path in dataset.table_files("captions", source):
            for judged, mark in marks_of(dataset, path.stem, source).items():
                yield {**mark, **vars(judged), "who": None if who == NOBODY else who}


def human_sources(dataset: Dataset) -> list[str]:
    """Sources of what people wrote and marked here."""
    return [name for name in dataset.caption_sources() if name.startswith(WRITTEN_BY)]


def _marked(
    dataset: Dataset, shard: str, judged: Judged, mark: Mark, text: str | None, seen: str | None
) -> HumanCaption:
    """The caption that a mark is stored as; see `set_mark` for errors."""
    written = _checked(text) if mark == "edited" else None
    read = said_text(_caption(dataset, shard, judged))
    if seen is not None and seen != text_mark(read or ""):
        raise DatasetError("This caption was written anew since you saw it; look at it again.")
    if mark != "edited" and not (read or "").strip():
        raise ConfigError(f"There is no text here to be called {mark}; write one (edited).")
    ref = CaptionRef(judged.kind, judged.source, judged.sample_index, text_mark(read or ""))
    said = {"good": read, "bad": None, "edited": written}[mark]
    return HumanCaption(judged.key, said, about=ref, mark=mark, raw_text=read)


@contextmanager
def _turn(dataset: Dataset, source: str) -> Iterator[None]:
    """Hold the lock of one's marks; a second page of the same person holds it for milliseconds."""
    end = time.monotonic() + WAIT
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold(dataset.directory, [f"captions/{source}"]))
                break
            except DatasetError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        yield


def _caption(dataset: Dataset, shard: str, judged: Judged) -> dict[str, Any]:
    known = judged.source in dataset.caption_sources()
    if not known or not dataset.has_shard("captions", shard, judged.source):
        raise ConfigError(f"There are no captions by {judged.source!r} of this picture.")
    wanted = (
        (pc.field("key") == judged.key)
        & (pc.field("kind") == judged.kind)
        & (pc.field("sample_index") == judged.sample_index)
    )
    found = dataset.read_table("captions", shard, judged.source).filter(wanted).to_pylist()
    if not found:
        raise ConfigError(
            f"{judged.source!r} wrote no {judged.kind} caption {judged.sample_index} of this "
            f"picture."
        )
    caption: dict[str, Any] = found[0]
    return caption


def _checked(text: str | None) -> str:
    written = (text or "").strip()
    if not any(letter.isalnum() for letter in written):
        raise ConfigError("An edited caption needs a letter or a digit.")
    if len(written) > LONGEST:
        raise ConfigError(f"A caption of {len(written):,} characters is longer than {LONGEST:,}.")
    try:
        written.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("This text holds half of a character, which no file can.") from error
    return written
