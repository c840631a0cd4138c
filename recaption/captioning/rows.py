"""From drafts to rows of the captions table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from curate.base.provenance import package_versions
from curate.store.captions import MADE_FROM
from curate.store.contract import CAPTIONS
from recaption.captioning.drafts import OK, Draft, KindPlan, Pending
from recaption.captioning.signature import signatures
from recaption.engines.identity import Captioner
from recaption.engines.pictures import header_size
from recaption.gates.gates import count_words
from recaption.gates.language import detect_languages
from recaption.measure.token_counts import TokenCounter

_RECORDED_PACKAGES = ("python", "caption-lab", "transformers", "torch", "pillow")


def caption_table(
    captioner: Captioner,
    revision: str,
    plan: KindPlan,
    pending: Pending,
    drafts: Sequence[Draft],
    tokens: TokenCounter,
) -> pa.Table:
    """One row of the captions schema a pending caption, in their order.

    Args:
        revision: what was loaded; empty where nobody knows.
    """
    count, template = len(pending), plan.template
    versions = package_versions()
    outcomes = [draft.outcome for draft in drafts]
    columns: dict[str, Any] = {name: [None] * count for name in CAPTIONS.names}
    columns |= text_columns([draft.repaired for draft in drafts], tokens)
    shown = [template.shown(values) for values in pending.prompt_values]
    columns |= {
        "key": pending.keys,
        "kind": [template.name] * count,
        "sample_index": pending.sample_indices,
        "text": [draft.text for draft in drafts],
        "raw_text": [outcome.text for outcome in outcomes],
        "status": [draft.status for draft in drafts],
        "reason": [draft.reason for draft in drafts],
        "detail": [outcome.detail for outcome in outcomes],
        "flags": [draft.flags for draft in drafts],
        "finish_reason": [outcome.finish_reason for outcome in outcomes],
        "attempts": [draft.attempts for draft in drafts],
        "prompt_tokens": [outcome.prompt_tokens for outcome in outcomes],
        "output_tokens": [outcome.output_tokens for outcome in outcomes],
        "clip_similarity": [_known(draft.similarity) for draft in drafts],
        "clip_sentence_mean": [_known(draft.sentence_mean) for draft in drafts],
        "clip_sentence_min": [_known(draft.sentence_min) for draft in drafts],
        "alt_clip_similarity": [_known(draft.alt_similarity) for draft in drafts],
        "signature": _signatures(drafts),
        **_picture_columns(pending.pictures),
        "sent_width": [outcome.sent_width for outcome in outcomes],
        "sent_height": [outcome.sent_height for outcome in outcomes],
        "engine": [captioner.engine] * count,
        "model": [captioner.model] * count,
        "model_revision": [revision or captioner.revision or None] * count,
        "prompt_id": [template.id] * count,
        "prompt_sha256": [template.sha256] * count,
        "alt_text_shown": [
            template.shows_alt_text(alt_text, plan.show_alt_text) for alt_text in pending.alt_texts
        ],
        "prompt_variables": [
            of.get(MADE_FROM)
            or (json.dumps(values, sort_keys=True, ensure_ascii=False) if values else None)
            for of, values in zip(pending.prompt_values, shown, strict=True)
        ],
        "sampling": [draft.sampling.to_json() for draft in drafts],
        "seed": [draft.seed for draft in drafts],
        "latency_seconds": [draft.latency_seconds for draft in drafts],
        "created_at": [datetime.now(UTC)] * count,
        "versions": [
            json.dumps({name: versions.get(name) for name in _RECORDED_PACKAGES}, sort_keys=True)
        ]
        * count,
    }
    return pa.table(columns, schema=CAPTIONS)


def text_columns(texts: Sequence[str | None], tokens: TokenCounter) -> dict[str, list[Any]]:
    """words, clip_tokens, t5_tokens and language of each text; null where there is none."""
    rows = [row for row, text in enumerate(texts) if text is not None]
    present = [text for text in texts if text is not None]
    measured: dict[str, Sequence[Any]] = {
        "words": count_words(present).tolist(),
        "clip_tokens": tokens.clip(present),
        "t5_tokens": tokens.t5(present),
        "language": detect_languages(present),
    }
    columns: dict[str, list[Any]] = {name: [None] * len(texts) for name in measured}
    for name, values in measured.items():
        for row, value in zip(rows, values, strict=True):
            columns[name][row] = value
    return columns


def _picture_columns(pictures: Sequence[bytes | None]) -> dict[str, list[Any]]:
    """Hash and size of each stored picture; null where it is missing, or has no readable header."""
    unknown = (None, None, None)
    # Rows of several samples share their picture's bytes, which are looked at once.
    known: dict[int, tuple[Any, Any, Any]] = {}
    for picture in pictures:
        if picture and id(picture) not in known:
            size = header_size(picture) or (None, None)
            known[id(picture)] = (hashlib.sha256(picture).hexdigest(), *size)
    facts = [known.get(id(picture), unknown) for picture in pictures]
    names = ("image_sha256", "image_width", "image_height")
    return {name: [row[place] for row in facts] for place, name in enumerate(names)}


def _signatures(drafts: Sequence[Draft]) -> list[bytes | None]:
    """Of accepted captions alone: what a gate rejected is compared with nothing."""
    accepted = iter(signatures([draft.text or "" for draft in drafts if draft.status == OK]))
    return [next(accepted) if draft.status == OK else None for draft in drafts]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
