"""Captions of one kind for a batch of pictures: ask, gate, repair, ask again, make table rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset import CAPTIONS
from curate.provenance import package_versions
from recaption.captioner import Captioner
from recaption.engine import CaptionEngine, CaptionOutcome, CaptionRequest, Sampling
from recaption.gates import GateColumns, count_words, judge
from recaption.prompts import PromptTemplate
from recaption.settings import RecaptionSettings

OK = "ok"
REJECTED = "rejected"
FAILED = "failed"

# Nucleus of a retry: a loop needs other words, a caption still needs likely ones.
RETRY_TOP_P = 0.95
_RECORDED_PACKAGES = ("python", "caption-lab", "transformers", "torch", "pillow")


@dataclass(frozen=True)
class KindPlan:
    """All that holds for every caption of one kind.

    Attributes:
        template: the prompt.
        sampling: of the first try.
        retry_sampling: of every further try.
        retries: further tries at most.
        seed: of the whole run.
        min_words: fewer are too short.
        rejects: gates that reject.
        show_alt_text: whether the alt text is shown as a hint.
    """

    template: PromptTemplate
    sampling: Sampling
    retry_sampling: Sampling
    retries: int
    seed: int
    min_words: int
    rejects: tuple[str, ...]
    show_alt_text: bool

    @classmethod
    def of(cls, settings: RecaptionSettings, template: PromptTemplate) -> KindPlan:
        """The plan for the kind that `template` names."""
        kind = template.name
        first = Sampling(
            max_new_tokens=settings.max_new_tokens_of(kind),
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            repetition_penalty=settings.repetition_penalty,
        )
        hotter = max(settings.temperature, settings.retry_temperature)
        return cls(
            template=template,
            sampling=first,
            retry_sampling=replace(
                first, temperature=hotter, top_p=min(settings.top_p, RETRY_TOP_P)
            ),
            retries=settings.retries,
            seed=settings.seed,
            min_words=settings.min_words_of(kind),
            rejects=settings.reject,
            show_alt_text=settings.show_alt_text,
        )


@dataclass
class Pending:
    """Captions of one kind that are still to be written, as columns of equal length."""

    keys: list[str] = field(default_factory=list)
    sample_indices: list[int] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    alt_texts: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: str, sample_index: int, picture: bytes, alt_text: str | None) -> None:
        """Append a row; several rows of one picture share its bytes."""
        self.keys.append(key)
        self.sample_indices.append(sample_index)
        self.pictures.append(picture)
        self.alt_texts.append(alt_text)


@dataclass
class _Draft:
    """One row's latest answer and its judgement."""

    outcome: CaptionOutcome
    attempts: int
    seed: int
    sampling: Sampling
    status: str = FAILED
    reason: str | None = None
    text: str | None = None
    flags: list[str] = field(default_factory=list)
    retry: bool = False


def row_seed(seed: int, key: str, kind: str, sample_index: int, attempt: int) -> int:
    """Seed of one try of one caption, 0 <= seed < 2**31, whatever else is captioned."""
    name = f"{seed}/{key}/{kind}/{sample_index}/{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 33


def caption_kind(
    engine: CaptionEngine, captioner: Captioner, plan: KindPlan, pending: Pending
) -> pa.Table:
    """Write the pending captions of one kind.

    Returns:
        A table of the captions schema with exactly one row a pending caption, in their order:
        "ok", "rejected" with the gate that decided, or "failed" with the engine's error.
    """
    prompts = plan.template.render(pending.alt_texts, plan.show_alt_text)
    drafts: list[_Draft] = _ask(engine, plan, pending, prompts, range(len(pending)), attempt=0)
    for attempt in range(1, plan.retries + 1):
        again = [row for row, draft in enumerate(drafts) if draft.retry]
        if not again:
            break
        answers = _ask(engine, plan, pending, prompts, again, attempt)
        for row, answer in zip(again, answers, strict=True):
            if answer.status == FAILED:
                # The engine failed this time; what the gates said of the last answer stands.
                drafts[row].attempts = answer.attempts
            else:
                drafts[row] = answer
    return _table(engine, captioner, plan, pending, drafts)


def missing_picture_rows(plan: KindPlan, captioner: Captioner, pending: Pending) -> pa.Table:
    """Failed rows for samples whose picture is not in their shard."""
    outcome = CaptionOutcome(error="missing_picture")
    drafts = [_Draft(outcome, 0, 0, plan.sampling, reason=outcome.error) for _ in pending.keys]
    return _table(None, captioner, plan, pending, drafts)


def _ask(
    engine: CaptionEngine,
    plan: KindPlan,
    pending: Pending,
    prompts: Sequence[str],
    rows: Sequence[int],
    attempt: int,
) -> list[_Draft]:
    """One try for the given rows, judged."""
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
    outcomes = engine.caption(request)
    drafts = [
        _Draft(outcome, attempt + 1, seed, sampling, reason=outcome.error)
        for outcome, seed in zip(outcomes, seeds, strict=True)
    ]
    _judge(plan, drafts, [pending.alt_texts[row] for row in rows])
    return drafts


def _judge(plan: KindPlan, drafts: Sequence[_Draft], alt_texts: Sequence[str | None]) -> None:
    """Run the gates over all drafts that hold a text."""
    spoken = [row for row, draft in enumerate(drafts) if draft.outcome.text is not None]
    template = plan.template
    verdict = judge(
        GateColumns(
            texts=[drafts[row].outcome.text or "" for row in spoken],
            finish_reasons=[drafts[row].outcome.finish_reason for row in spoken],
            alt_texts=[alt_texts[row] for row in spoken],
            instructions=(template.text, template.system, template.alt_hint),
            min_words=plan.min_words,
        ),
        plan.rejects,
    )
    for place, row in enumerate(spoken):
        draft = drafts[row]
        draft.reason = verdict.reasons[place]
        draft.status = OK if draft.reason is None else REJECTED
        draft.text = verdict.texts[place] if draft.status == OK else None
        draft.flags = verdict.flags[place]
        draft.retry = bool(verdict.retry[place])


def _table(
    engine: CaptionEngine | None,
    captioner: Captioner,
    plan: KindPlan,
    pending: Pending,
    drafts: Sequence[_Draft],
) -> pa.Table:
    count, template = len(pending), plan.template
    versions = package_versions()
    outcomes = [draft.outcome for draft in drafts]
    texts = [draft.text for draft in drafts]
    words = np.where([t is not None for t in texts], count_words([t or "" for t in texts]), -1)
    columns: dict[str, Any] = {name: [None] * count for name in CAPTIONS.names}
    columns |= {
        "key": pending.keys,
        "kind": [template.name] * count,
        "sample_index": pending.sample_indices,
        "text": texts,
        "raw_text": [outcome.text for outcome in outcomes],
        "status": [draft.status for draft in drafts],
        "reason": [draft.reason for draft in drafts],
        "detail": [outcome.detail for outcome in outcomes],
        "flags": [draft.flags for draft in drafts],
        "finish_reason": [outcome.finish_reason for outcome in outcomes],
        "attempts": [draft.attempts for draft in drafts],
        "words": [None if n < 0 else int(n) for n in words],
        "prompt_tokens": [outcome.prompt_tokens for outcome in outcomes],
        "output_tokens": [outcome.output_tokens for outcome in outcomes],
        "image_sha256": [
            hashlib.sha256(picture).hexdigest() if picture else None for picture in pending.pictures
        ],
        "sent_width": [outcome.sent_width for outcome in outcomes],
        "sent_height": [outcome.sent_height for outcome in outcomes],
        "engine": [captioner.engine] * count,
        "model": [captioner.model] * count,
        "model_revision": [(engine.revision if engine else captioner.revision) or None] * count,
        "prompt_id": [template.id] * count,
        "prompt_sha256": [template.sha256] * count,
        "alt_text_shown": [
            template.shows_alt_text(alt_text, plan.show_alt_text) for alt_text in pending.alt_texts
        ],
        "sampling": [draft.sampling.to_json() for draft in drafts],
        "seed": [draft.seed for draft in drafts],
        "latency_seconds": [outcome.latency_seconds for outcome in outcomes],
        "created_at": [datetime.now(UTC)] * count,
        "versions": [
            json.dumps({name: versions.get(name) for name in _RECORDED_PACKAGES}, sort_keys=True)
        ]
        * count,
    }
    return pa.table(columns, schema=CAPTIONS)
