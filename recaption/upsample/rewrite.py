"""Caption up-sampling: short prompts rewritten as descriptive ones, for inference.

The captioner is asked for a text without a picture, its answer goes through gates, and what they
refuse is asked again with another seed. The original is kept beside every rewrite.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.provenance import package_versions
from recaption.captioning.ask import row_seed
from recaption.captioning.drafts import FAILED, OK, REJECTED, RETRY_TOP_K, RETRY_TOP_P
from recaption.engines.identity import Captioner
from recaption.engines.protocol import CaptionEngine, CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.registry import identify, open_engine
from recaption.gates.rules import count_words
from recaption.prompts.file import ListedPrompt
from recaption.upsample.gates import (
    Rewrites,
    judge_rewrites,
    kept_words,
    tidy,
)
from recaption.upsample.prompt import ask, instruction_sha256, load_instruction, without_prompt
from recaption.upsample.settings import UPSAMPLE_GATES, UpsampleSettings

UPSAMPLED = pa.schema(
    [
        ("row", pa.int64()),  # in the list, from 0
        ("prompt_sha256", pa.string()),
        ("prompt", pa.string()),  # the original; null where the list's row holds none
        ("text", pa.string()),  # the prompt to draw from; null unless status is "ok"
        ("raw_text", pa.string()),  # what the model said
        ("status", pa.string()),  # "ok", "rejected" (by a gate) or "failed"
        ("reason", pa.string()),  # the gate or error that decided; null where ok
        ("detail", pa.string()),  # an error's own words
        ("flags", pa.list_(pa.string())),  # every gate that spoke
        ("kept_words", pa.float32()),  # share of the original's words that are still there
        ("words", pa.int32()),
        ("finish_reason", pa.string()),
        ("attempts", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("engine", pa.string()),
        ("model", pa.string()),
        ("model_revision", pa.string()),
        ("instruction_sha256", pa.string()),
        ("sampling", pa.string()),  # JSON
        ("seed", pa.int64()),
        ("latency_seconds", pa.float32()),
        ("versions", pa.string()),  # JSON
        ("created_at", pa.timestamp("ms", tz="UTC")),
    ]
)
_RECORDED_PACKAGES = ("python", "caption-lab", "transformers", "torch")


@dataclass
class _Draft:
    """A prompt's latest answer and its judgement."""

    outcome: CaptionOutcome
    attempts: int
    seed: int
    sampling: Sampling
    status: str = FAILED
    reason: str | None = None
    text: str | None = None
    flags: list[str] = field(default_factory=list)


class Upsampler:
    """Rewrites prompts with one captioner. Opens it when it is first needed."""

    def __init__(self, settings: UpsampleSettings, captioner: Captioner | None = None) -> None:
        """Identify the captioner and read the instruction.

        Raises:
            ConfigError: no such captioner, one that reads no instructions, or no such file.
        """
        self.settings = settings
        self.instruction = load_instruction(
            settings.instruction, settings.min_words, settings.max_words
        )
        self.captioner = captioner or identify(settings)
        if not self.captioner.chat:
            raise ConfigError(
                f"The captioner {self.captioner.model!r} has no chat template and reads no "
                f"instructions, so it cannot rewrite prompts."
            )
        self._first = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
        self._hotter = replace(
            self._first,
            temperature=max(settings.temperature, settings.retry_temperature),
            top_p=min(settings.top_p, RETRY_TOP_P),
            top_k=RETRY_TOP_K,
        )
        self._engine: CaptionEngine | None = None

    @property
    def identity(self) -> str:
        """16 hex digits over all that decides a rewrite; rows of one output share it."""
        decisive = self.settings.identity()
        for name in ("captioner", "prompt_column", "instruction", "revision", "served_model"):
            del decisive[name]
        return fingerprint(
            {**decisive, "captioner": self.captioner.digest, "instruction": self.instruction}
        )

    def opened(self) -> CaptionEngine:
        """The captioner, loaded or reached if it was not before."""
        if self._engine is None:
            trial = Sampling.most_of([self._first, self._hotter][: 1 + self.settings.retries])
            self._engine = open_engine(self.settings, self.captioner, trial)
        return self._engine

    def rewrite(self, prompts: Sequence[str]) -> pa.Table:
        """One row of the schema UPSAMPLED a prompt, in their order; `row` is their place.

        A prompt's outcome does not depend on the others.
        """
        drafts = self._ask(prompts, self._first, attempt=0)
        for attempt in range(1, self.settings.retries + 1):
            again = [row for row, draft in enumerate(drafts) if draft.status == REJECTED]
            if not again:
                break
            answers = self._ask([prompts[row] for row in again], self._hotter, attempt)
            for row, answer in zip(again, answers, strict=True):
                if answer.status == FAILED:
                    # The engine failed this time; what the gates said of the last answer stands.
                    drafts[row].attempts = answer.attempts
                else:
                    drafts[row] = answer
        return self._table(prompts, drafts)

    def _ask(self, prompts: Sequence[str], sampling: Sampling, attempt: int) -> list[_Draft]:
        listed = [ListedPrompt(prompt).sha256 or "" for prompt in prompts]
        seed = self.settings.seed
        seeds = [row_seed(seed, sha256, "upsampled", 0, attempt) for sha256 in listed]
        outcomes = self.opened().caption(
            CaptionRequest(
                pictures=[None] * len(prompts),
                prompts=[ask(self.instruction, prompt) for prompt in prompts],
                seeds=seeds,
                sampling=sampling,
            )
        )
        drafts = [
            _Draft(outcome, attempt + 1, own, sampling, reason=outcome.error)
            for outcome, own in zip(outcomes, seeds, strict=True)
        ]
        self._judge(prompts, drafts)
        return drafts

    def _judge(self, prompts: Sequence[str], drafts: Sequence[_Draft]) -> None:
        settings = self.settings
        spoken = [row for row, draft in enumerate(drafts) if draft.outcome.text is not None]
        reasons = [drafts[row].outcome.finish_reason for row in spoken]
        texts = [
            tidy(drafts[row].outcome.text or "", reason, settings.min_words)
            for row, reason in zip(spoken, reasons, strict=True)
        ]
        flags = judge_rewrites(
            Rewrites(
                texts=texts,
                finish_reasons=reasons,
                prompts=[prompts[row] for row in spoken],
                instruction=without_prompt(self.instruction),
                min_words=settings.min_words,
                max_words=settings.max_words,
            )
        )
        for place, row in enumerate(spoken):
            draft = drafts[row]
            draft.flags = [name for name in UPSAMPLE_GATES if flags[name][place]]
            draft.reason = next((name for name in draft.flags if name in settings.reject), None)
            draft.status = OK if draft.reason is None else REJECTED
            draft.text = texts[place] if draft.status == OK else None

    def _table(self, prompts: Sequence[str], drafts: Sequence[_Draft]) -> pa.Table:
        count = len(prompts)
        versions = package_versions()
        outcomes = [draft.outcome for draft in drafts]
        texts = [draft.text or "" for draft in drafts]
        accepted = [draft.text is not None for draft in drafts]
        kept, words = kept_words(prompts, texts).tolist(), count_words(texts).tolist()
        shown = {name: versions.get(name) for name in _RECORDED_PACKAGES}
        columns: dict[str, Any] = {
            "row": list(range(count)),
            "prompt_sha256": [ListedPrompt(prompt).sha256 for prompt in prompts],
            "prompt": list(prompts),
            "text": [draft.text for draft in drafts],
            "raw_text": [outcome.text for outcome in outcomes],
            "status": [draft.status for draft in drafts],
            "reason": [draft.reason for draft in drafts],
            "detail": [outcome.detail for outcome in outcomes],
            "flags": [draft.flags for draft in drafts],
            "kept_words": [n if ok else None for n, ok in zip(kept, accepted, strict=True)],
            "words": [n if ok else None for n, ok in zip(words, accepted, strict=True)],
            "finish_reason": [outcome.finish_reason for outcome in outcomes],
            "attempts": [draft.attempts for draft in drafts],
            "prompt_tokens": [outcome.prompt_tokens for outcome in outcomes],
            "output_tokens": [outcome.output_tokens for outcome in outcomes],
            "engine": [self.captioner.engine] * count,
            "model": [self.captioner.model] * count,
            "model_revision": [self.opened().revision or self.captioner.revision or None] * count,
            "instruction_sha256": [instruction_sha256(self.instruction)] * count,
            "sampling": [draft.sampling.to_json() for draft in drafts],
            "seed": [draft.seed for draft in drafts],
            "latency_seconds": [outcome.latency_seconds for outcome in outcomes],
            "versions": [json.dumps(shown, sort_keys=True)] * count,
            "created_at": [datetime.now(UTC)] * count,
        }
        return pa.table(columns, schema=UPSAMPLED)
