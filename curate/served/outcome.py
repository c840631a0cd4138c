"""What became of a question to a model that writes: a text, or an error that is data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]

NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True)
class CaptionOutcome:
    """What became of one row: a text, or an error; never both, never neither.

    Attributes:
        text: what the captioner said, unchanged; may be empty.
        error: short countable reason, such as "broken_picture" or "http_429".
        detail: the error's own words, for a person.
        finish_reason: "length" when `max_new_tokens` cut the text off.
        prompt_tokens: tokens read, picture and chat template included, padding not; None where the
            engine cannot tell.
        output_tokens: tokens written, end token included; None where the engine cannot tell.
        sent_width, sent_height: pixels of the picture as the captioner was shown it.
        latency_seconds: wall time of the row; where rows go in batches, an equal share of it.
        first_tokens: (token, log-probability) of the likeliest first tokens, where a server was
            asked for them (`logprobs` and `top_logprobs` in `extra_body`) and gave them.
    """

    text: str | None = None
    error: str | None = None
    detail: str | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    sent_width: int | None = None
    sent_height: int | None = None
    # No part of what was said: two outcomes may be equal though one took longer.
    latency_seconds: float | None = field(default=None, compare=False)
    first_tokens: tuple[tuple[str, float], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError("an outcome has either a text or an error")
