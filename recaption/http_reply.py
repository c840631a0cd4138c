"""What a server's answer means: a caption, or a fault with its name and whether to ask again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from recaption.engine import NO_ANSWER, CaptionOutcome, FinishReason

NOT_JSON = "not_json"
CONNECTION = "connection"
TIMEOUT = "timeout"
CONTENT_FILTER = "content_filter"

# The server works and has too much to do (529: overloaded, as some providers say it).
_BUSY_STATUSES = frozenset({429, 529})
# The server's trouble, which may pass; 408 and 425 ask for another try by definition.
_PASSING_STATUSES = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524})
# A caption's reply is a few KB; a page that never ends must not fill the memory.
_MAX_REPLY_BYTES = 4 << 20
_DETAIL_CHARACTERS = 300


@dataclass(frozen=True)
class Reply:
    """What one try gave.

    Attributes:
        outcome: the caption or the error.
        passing: whether another try may go better.
        busy: whether the server only has too much to do.
        wait: seconds after which the server wants to be asked again; None where it did not say.
    """

    outcome: CaptionOutcome
    passing: bool = False
    busy: bool = False
    wait: float | None = None


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The body, up to 4 MiB.

    Raises:
        aiohttp.ClientPayloadError: it is longer.
    """
    raw = bytearray()
    async for block in response.content.iter_chunked(1 << 16):
        raw += block
        if len(raw) > _MAX_REPLY_BYTES:
            raise aiohttp.ClientPayloadError(f"a reply of more than {_MAX_REPLY_BYTES} bytes")
    return bytes(raw)


def understand(status: int, retry_after: str | None, raw: bytes, size: tuple[int, int]) -> Reply:
    """Tell a caption from everything else that a server may send.

    Args:
        status, retry_after, raw: of the HTTP response.
        size: (width, height) of the picture that was sent, in pixels.
    """
    if status != 200:
        wait = _seconds(retry_after)
        busy = status in _BUSY_STATUSES or (status == 503 and wait is not None)
        passing = busy or status in _PASSING_STATUSES
        return Reply(
            CaptionOutcome(error=f"http_{status}", detail=_beginning(raw)), passing, busy, wait
        )
    try:
        answer = json.loads(raw)
    except ValueError:
        return failure(NOT_JSON, _beginning(raw), passing=True)
    try:
        choice = answer["choices"][0]
        content = choice["message"]["content"]
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return failure(NO_ANSWER, _beginning(raw), passing=True)
    if finish == "content_filter":
        return failure(CONTENT_FILTER, "the server's filter withheld the caption", passing=False)
    if isinstance(content, list):  # parts, as some servers send them
        content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    if not isinstance(content, str):
        return failure(NO_ANSWER, _beginning(raw), passing=True)
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    reason: FinishReason = "length" if finish == "length" else "stop"
    return Reply(
        CaptionOutcome(
            text=content.strip(),
            finish_reason=reason,
            output_tokens=tokens if isinstance(tokens, int) else None,
            sent_width=size[0],
            sent_height=size[1],
        )
    )


def failure(error: str, detail: str, passing: bool) -> Reply:
    """A try that gave no caption."""
    return Reply(CaptionOutcome(error=error, detail=detail), passing)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds from now: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _beginning(raw: bytes) -> str:
    return " ".join(raw[: 4 * _DETAIL_CHARACTERS].decode(errors="replace").split())[
        :_DETAIL_CHARACTERS
    ]
