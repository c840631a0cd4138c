"""The protocol between the caption stage and whatever writes captions: columns in, outcomes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from curate.served.outcome import NO_ANSWER as NO_ANSWER
from curate.served.outcome import CaptionOutcome as CaptionOutcome
from curate.served.outcome import FinishReason as FinishReason

# Reasons of failed rows that any engine can give; the HTTP engine adds "http_<status>".
BROKEN_PICTURE = "broken_picture"
ENGINE_ERROR = "engine_error"
NO_PICTURE = "no_picture"
# Of rows over which the engine's process died, or hung and was ended, among others and alone.
ENGINE_DIED = "engine_died"
ENGINE_STUCK = "engine_stuck"


@dataclass(frozen=True)
class Sampling:
    """How words are drawn.

    Attributes:
        max_new_tokens: output tokens at most, end token included.
        temperature: 0 is greedy.
        top_p: nucleus sampling, in (0, 1]; 1 keeps all words. Without effect when greedy.
        top_k: only the k likeliest words; 0 keeps all. Without effect when greedy.
        repetition_penalty: 1 is none. Above 1 it also harms texts that repeat with good reason.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def to_json(self) -> str:
        """Canonical JSON, for the captions table."""
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def most_of(cls, asked: Sequence[Sampling]) -> Sampling:
        """What needs most of a server: all that any of these may send, in one request."""
        return cls(
            max_new_tokens=max(one.max_new_tokens for one in asked),
            temperature=max(one.temperature for one in asked),
            top_p=min(one.top_p for one in asked),
            top_k=max(one.top_k for one in asked),
            repetition_penalty=max(one.repetition_penalty for one in asked),
        )


@dataclass(frozen=True)
class CaptionRequest:
    """A batch of rows of one caption kind, as columns of equal length N.

    Attributes:
        pictures: encoded image files (JPEG, PNG, WebP), as they lie in the shard. Encoded, so that
            thousands of rows cost megabytes, and decoded by the engine while it works. None where
            the row is a text alone (prompt up-sampling).
        prompts: the user turn of each row, alt-text hint included.
        seeds: one a row, 0 <= seed < 2**31; unused when greedy.
        sampling: the same for all rows.
        system: the system turn of all rows; empty means none.
    """

    pictures: Sequence[bytes | None]
    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: Sampling
    system: str = ""

    def __post_init__(self) -> None:
        lengths = {len(self.pictures), len(self.prompts), len(self.seeds)}
        if len(lengths) != 1:
            raise ValueError("pictures, prompts and seeds must have one entry a row each")

    def __len__(self) -> int:
        return len(self.pictures)

    def part(self, rows: Sequence[int]) -> CaptionRequest:
        """Some of its rows alone."""
        return replace(
            self,
            pictures=[self.pictures[row] for row in rows],
            prompts=[self.prompts[row] for row in rows],
            seeds=[self.seeds[row] for row in rows],
        )


class CaptionEngine(Protocol):
    """Writes captions. Made in a worker, which keeps it for its lifetime."""

    name: str
    """As in the captions table, such as "transformers" or "http"."""

    revision: str
    """What was loaded: hub commit, or sha256 over a local folder's weights; may be empty."""

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """Exactly one outcome a row, in the rows' order.

        A row that cannot be captioned has an error for outcome; it never raises for the others.
        Results do not depend on how rows are spread over requests, up to the rounding of batched
        matrix products.
        """
        ...
