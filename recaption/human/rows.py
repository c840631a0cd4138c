"""Human captions as rows of the captions table, and the one way in which they are stored.

    kind            human
    source          human-NAME: written or marked here; imported-NAME: taken in from files
    status          ok; rejected where a person called a stored caption bad (its text is raw_text)
    flags           what was said of the caption that it is about: good, bad or edited; else empty
    raw_text        that caption's text, or the text as it stood in the file
    model           who wrote that caption, or the file; prompt_id: its kind
    prompt_variables    which caption it is about, with the hash of its text
    engine          human

They are measured as all captions are (words, tokens, language), but no gate judges them. A person's
texts repeat each other for reasons of their own, so they have no signature.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.kinds import HUMAN
from curate.store.captions import CaptionRef, made_from, read_made_from
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from recaption.captioning.drafts import FAILED, OK, REJECTED
from recaption.captioning.rows import text_columns
from recaption.measure.token_counts import TokenCounter

Mark = Literal["good", "bad", "edited"]

_ID = ("key", "sample_index")
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class HumanCaption:
    """What a person says of a picture, or of one of its captions.

    Attributes:
        sample_index: None takes the place of what was said of the same caption before, or else the
            next that is free.
        text: to train on; None where there is none.
        about: the stored caption that was looked at.
        mark: what was said of it.
        raw_text: its text, or the text as it stood in the file.
        reason, detail: why there is no text, of a file's.
        found_in: the file.
    """

    key: str
    text: str | None = None
    sample_index: int | None = None
    about: CaptionRef | None = None
    mark: Mark | None = None
    raw_text: str | None = None
    reason: str | None = None
    detail: str | None = None
    found_in: str | None = None


def store_human(
    dataset: Dataset,
    source: str,
    shard: str,
    captions: Sequence[HumanCaption],
    tokens: TokenCounter,
    remove: Collection[tuple[str, int]] = (),
) -> pa.Table:
    """Put captions into one shard of `source`, each in the place of an earlier one or beside it.

    The caller holds the lock `captions/SOURCE`. The shard's table is written again, atomically and
    sorted, so cost is one shard of this source a call.

    Args:
        remove: (key, sample index) of rows that go.

    Returns:
        The shard's rows.
    """
    before = CAPTIONS.empty_table()
    if dataset.has_shard("captions", shard, source):
        before = dataset.read_table("captions", shard, source).cast(CAPTIONS)
    taken = {
        (key, index): told
        for key, index, told in zip(
            *(before.column(name).to_pylist() for name in (*_ID, "prompt_variables")), strict=True
        )
        if (key, index) not in remove
    }
    placed: dict[tuple[str, int], HumanCaption] = {}
    for caption in captions:
        place = (caption.key, _index(caption, taken))
        taken[place], placed[place] = _about(caption), caption
    new = human_rows(placed, tokens)
    stays = [
        place in taken and place not in placed
        for place in zip(*(before.column(name).to_pylist() for name in _ID), strict=True)
    ]
    rows = pa.concat_tables([before.filter(pa.array(stays, pa.bool_())), new])
    rows = rows.sort_by([(name, "ascending") for name in _ID])
    dataset.write_table("captions", rows, shard, source)
    return rows


def human_rows(placed: dict[tuple[str, int], HumanCaption], tokens: TokenCounter) -> pa.Table:
    """Rows of the captions schema, of (key, sample index) -> caption."""
    captions = list(placed.values())
    status = [
        OK if one.text is not None else REJECTED if one.mark == "bad" else FAILED
        for one in captions
    ]
    columns: dict[str, Any] = {name: [None] * len(captions) for name in CAPTIONS.names}
    columns |= text_columns([one.text for one in captions], tokens)
    columns |= {
        "key": [one.key for one in captions],
        "kind": [HUMAN] * len(captions),
        "sample_index": [index for _, index in placed],
        "text": [one.text for one in captions],
        "raw_text": [one.raw_text if one.raw_text is not None else one.text for one in captions],
        "status": status,
        "reason": [
            None if said == OK else one.reason or "bad"
            for one, said in zip(captions, status, strict=True)
        ],
        "detail": [one.detail for one in captions],
        "flags": [[one.mark] if one.mark else [] for one in captions],
        "engine": [HUMAN] * len(captions),
        "model": [one.about.source if one.about else one.found_in for one in captions],
        "prompt_id": [one.about.kind if one.about else None for one in captions],
        "alt_text_shown": [False] * len(captions),
        "prompt_variables": [_about(one) for one in captions],
        "created_at": [datetime.now(UTC)] * len(captions),
    }
    return pa.table(columns, schema=CAPTIONS)


def source_of(start: str, name: str) -> str:
    """The source `start` + `name`, such as human-anna.

    Raises:
        ConfigError: a name that cannot be a folder everywhere.
    """
    if not _SOURCE.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name who wrote captions; use lower-case letters, digits, '.', '_' "
            f"and '-', and begin with a letter or digit."
        )
    return start + name


def _about(caption: HumanCaption) -> str | None:
    return made_from([caption.about]) if caption.about else None


def _index(caption: HumanCaption, taken: dict[tuple[str, int], str | None]) -> int:
    if caption.sample_index is not None:
        return caption.sample_index
    own = {index: told for (key, index), told in taken.items() if key == caption.key}
    if caption.about is not None:
        for index, told in own.items():
            if _same(caption.about, told):
                return index
    return next(index for index in range(len(own) + 1) if index not in own)


def _same(about: CaptionRef, told: str | None) -> bool:
    """Whether a row is about this caption, whatever its text was then."""
    return any(
        (ref.kind, ref.source, ref.sample_index) == (about.kind, about.source, about.sample_index)
        for ref in read_made_from(told)
    )
