"""Captions of one kind for a batch of pictures: ask, gate, repair, ask again, make table rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.store.captions import MADE_FROM
from recaption.captioning.answers import read_answers
from recaption.captioning.drafts import FAILED, OK, REJECTED, Draft, KindPlan, Pending
from recaption.captioning.rows import caption_table
from recaption.engines.attention import asking
from recaption.engines.identity import Captioner
from recaption.engines.protocol import CaptionEngine, CaptionOutcome, CaptionRequest
from recaption.gates.gates import GateColumns, judge
from recaption.gates.language import language_code
from recaption.measure.measures import CaptionMeasures
from recaption.measure.similarity import CaptionSimilarity
from recaption.prompts.template import LANGUAGE

__all__ = [
    "FAILED",
    "OK",
    "REJECTED",
    "KindPlan",
    "Pending",
    "caption_kind",
    "missing_picture_rows",
    "row_seed",
]

_MISSING_DETAIL = "the shard's tar does not hold it, or is damaged before its place"


def row_seed(seed: int, key: str, kind: str, sample_index: int, attempt: int) -> int:
    """Seed of one try of one caption, 0 <= seed < 2**31, whatever else is captioned."""
    name = f"{seed}/{key}/{kind}/{sample_index}/{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 33


def caption_kind(
    engine: CaptionEngine,
    captioner: Captioner,
    plan: KindPlan,
    pending: Pending,
    measures: CaptionMeasures,
) -> pa.Table:
    """Write the pending captions of one kind.

    Args:
        measures: opened before.

    Returns:
        A table of the captions schema with exactly one row a pending caption, in their order:
        "ok", "rejected" with the gate that decided, or "failed" with the engine's error.
    """
    prompts = plan.template.render(pending.alt_texts, plan.show_alt_text, pending.prompt_values)
    similarity = measures.similarity
    alt = similarity.compare(pending.image_embeddings, pending.alt_texts).sentence_mean

    def ask(rows: Sequence[int], attempt: int) -> list[Draft]:
        drafts = _ask(engine, plan, pending, prompts, rows, attempt)
        _judge(plan, drafts, pending, rows, similarity, alt)
        return drafts

    drafts = ask(range(len(pending)), 0)
    for attempt in range(1, plan.retries + 1):
        again = [row for row, draft in enumerate(drafts) if draft.retry]
        if not again:
            break
        for row, answer in zip(again, ask(again, attempt), strict=True):
            answer.latency_seconds = _sum(drafts[row].latency_seconds, answer.latency_seconds)
            if answer.status == FAILED:
                # The engine failed this time; what the gates said of the last answer stands.
                drafts[row].attempts = answer.attempts
                drafts[row].latency_seconds = answer.latency_seconds
            else:
                drafts[row] = answer
    return caption_table(captioner, engine.revision, plan, pending, drafts, measures.tokens)


def missing_picture_rows(
    plan: KindPlan, captioner: Captioner, pending: Pending, measures: CaptionMeasures
) -> pa.Table:
    """Failed rows for samples whose picture is not in their shard."""
    outcome = CaptionOutcome(error="missing_picture", detail=_MISSING_DETAIL)
    return failed_rows(plan, captioner, pending, measures, outcome)


def failed_rows(
    plan: KindPlan,
    captioner: Captioner,
    pending: Pending,
    measures: CaptionMeasures,
    outcome: CaptionOutcome,
) -> pa.Table:
    """Rows that fail with an outcome's error, of which the captioner is not asked (any more)."""
    drafts = [Draft(outcome, 0, 0, plan.sampling, reason=outcome.error) for _ in pending.keys]
    return caption_table(captioner, "", plan, pending, drafts, measures.tokens)


def _ask(
    engine: CaptionEngine,
    plan: KindPlan,
    pending: Pending,
    prompts: Sequence[str],
    rows: Sequence[int],
    attempt: int,
) -> list[Draft]:
    """One try for the given rows."""
    kind = plan.template.name
    sampling = plan.sampling if attempt == 0 else plan.retry_sampling
    seeds = [
        row_seed(plan.seed, pending.keys[row], kind, pending.sample_indices[row], attempt)
        for row in rows
    ]
    request = CaptionRequest(
        pictures=[pending.pictures[row] for row in rows],
        prompts=[prompts[row] for row in rows],
        seeds=seeds,
        sampling=sampling,
        system=plan.template.render_system(),
    )
    with asking(kind, [pending.keys[row] for row in rows]):
        outcomes = engine.caption(request)
    return [
        Draft(
            outcome,
            attempt + 1,
            seed,
            sampling,
            reason=outcome.error,
            latency_seconds=outcome.latency_seconds,
        )
        for outcome, seed in zip(outcomes, seeds, strict=True)
    ]


def _judge(
    plan: KindPlan,
    drafts: Sequence[Draft],
    pending: Pending,
    rows: Sequence[int],
    similarity: CaptionSimilarity,
    alt_similarities: NDArray[np.float32],
) -> None:
    """Measure and run the gates over all drafts that hold a text.

    Args:
        rows: place of each draft among the pending captions.
        alt_similarities: of all pending rows.
    """
    spoken = [place for place, draft in enumerate(drafts) if draft.outcome.text is not None]
    places = [rows[place] for place in spoken]
    texts = [drafts[place].outcome.text or "" for place in spoken]
    finish_reasons = [drafts[place].outcome.finish_reason for place in spoken]
    answers = read_answers(plan.template.name, texts, finish_reasons, plan.min_words)
    found = similarity.compare([pending.image_embeddings[row] for row in places], answers.repaired)
    verdict = judge(
        GateColumns(
            texts=answers.said,
            finish_reasons=answers.finish_reasons,
            alt_texts=[pending.alt_texts[row] for row in places],
            instructions=plan.template.instructions(),
            min_words=plan.min_words,
            max_words=plan.max_words,
            sources=_sources(pending, places),
            languages=_expected_languages(plan, pending, places),
            advantages=found.sentence_mean - (alt_similarities[places] - plan.clip_margin),
        ),
        plan.rejects,
        plan.gates,
        answers.repaired,
    )
    for index, place in enumerate(spoken):
        draft = drafts[place]
        draft.reason, draft.flags = answers.verdict(
            index, verdict.reasons[index], verdict.flags[index]
        )
        draft.status = OK if draft.reason is None else REJECTED
        draft.repaired = answers.stored[index]
        draft.text = draft.repaired if draft.status == OK else None
        draft.retry = bool(verdict.retry[index])
        if (unread := answers.unread[index]) is not None:
            draft.retry = True
            draft.outcome = replace(draft.outcome, detail=unread.detail or None)
        draft.similarity = float(found.whole[index])
        draft.sentence_mean = float(found.sentence_mean[index])
        draft.sentence_min = float(found.sentence_min[index])
        draft.alt_similarity = float(alt_similarities[places[index]])


def _sources(pending: Pending, rows: Sequence[int]) -> list[str]:
    """All that each row's caption is made from; empty where captions are made from pictures."""
    values = [pending.prompt_values[row] for row in rows]
    if not any(MADE_FROM in own for own in values):
        return []
    return [" ".join(text for name, text in own.items() if name != MADE_FROM) for own in values]


def _expected_languages(plan: KindPlan, pending: Pending, rows: Sequence[int]) -> list[str]:
    """ISO code of each row's language; "" where a column names one that we do not know."""
    if LANGUAGE not in plan.template.columns:
        return [plan.language] * len(rows)
    named = [pending.prompt_values[row].get(LANGUAGE) for row in rows]
    return [(language_code(name) or "") if name else plan.language for name in named]


def _sum(one: float | None, other: float | None) -> float | None:
    known = [seconds for seconds in (one, other) if seconds is not None]
    return sum(known) if known else None
