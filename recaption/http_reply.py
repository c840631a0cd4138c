"""What a server's answer means: a caption, or a fault with its name and whether to ask again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from recaption.engine import NO_ANSWER, CaptionOutcome, FinishReason

NOT_JSON = "not_json"
CONNECTION = "connection"
TIMEOUT = "timeout"
CONTENT_FILTER = "content_filter"
REFUSED = "refused"
ONLY_REASONING = "only_reasoning"

# The server works and has too much to do (529: overloaded, as some providers say it).
_BUSY_STATUSES = frozenset({429, 529})
# The server's trouble, which may pass; 408 and 425 ask for another try by definition.
_PASSING_STATUSES = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524})
# 429 as well, but waiting fills no account.
_EMPTY_ACCOUNT = "insufficient_quota"
# The text ended because the server stopped working on it, so it is no caption.
_BROKEN_OFF = frozenset({"error", "abort", "aborted", "cancelled", "canceled"})
_CUT_OFF = frozenset({"length", "max_tokens"})
# A caption's reply is a few KB; a page that never ends must not fill the memory.
_MAX_REPLY_BYTES = 4 << 20
_DETAIL_CHARACTERS = 300
# Servers that quote a refused request would put the whole picture into the detail.
_PICTURE = re.compile(rb"(data:image/\w+;base64,)[A-Za-z0-9+/=]*|[A-Za-z0-9+/]{200,}=*")
# A bearer key in any form that a server may quote it in.
_BEARER = re.compile(rb"(?i)(bearer\s+)[^\s\"',}]+")
# Tables count tokens in 32 bits, and a server may say anything.
_MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Reply:
    """What one try gave.

    Attributes:
        outcome: the caption or the error.
        passing: whether another try may go better.
        busy: whether the server only has too much to do.
        gone: whether the server took no connection at all.
        wait: seconds after which the server wants to be asked again; None where it did not say.
    """

    outcome: CaptionOutcome
    passing: bool = False
    busy: bool = False
    gone: bool = False
    wait: float | None = None


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The body, up to 4 MiB.

    Raises:
        aiohttp.ClientPayloadError: it is longer.
    """
    raw = bytearray()
    async for block in response.content.iter_any():
        raw += block
        if len(raw) > _MAX_REPLY_BYTES:
            raise aiohttp.ClientPayloadError(f"a reply of more than {_MAX_REPLY_BYTES} bytes")
    return bytes(raw)


def understand(
    status: int,
    retry_after: str | None,
    raw: bytes,
    size: tuple[int, int] | None,
    key: str = "",
) -> Reply:
    """Tell a caption from everything else that a server may send.

    Args:
        status, retry_after, raw: of the HTTP response.
        size: (width, height) of the picture that was sent, in pixels; None where none was.
        key: of the server, never to stand in an error's detail.
    """
    answer = _json(raw)
    if status != 200:
        return _refusal(status, retry_after, answer, _beginning(raw, key))
    if answer is None:
        return failure(NOT_JSON, _beginning(raw, key), passing=True)
    if isinstance(answer, dict) and answer.get("error"):
        # Gateways wrap the real status into an answer of status 200, also beside half a caption.
        code = answer["error"].get("code") if isinstance(answer["error"], dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            return _refusal(code, retry_after, answer, _beginning(raw, key))
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content = message["content"]
        finish = str(choice.get("finish_reason"))
        refusal = message.get("refusal")
        thought = message.get("reasoning_content") or message.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError):
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    if finish == "content_filter":
        return failure(CONTENT_FILTER, "the server's filter withheld the caption", passing=False)
    if finish in _BROKEN_OFF:
        return failure(NO_ANSWER, f"the server broke off: {finish}", passing=True)
    if isinstance(content, list):  # parts, as some servers send them
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not content and isinstance(refusal, str) and refusal:
        return failure(REFUSED, _valid(refusal)[:_DETAIL_CHARACTERS], passing=False)
    if not content and thought:
        detail = (
            "all output tokens went into reasoning; raise max_new_tokens or switch reasoning off "
            "with extra_body"
        )
        return failure(ONLY_REASONING, detail, passing=False)
    if not isinstance(content, str):
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    usage = answer.get("usage")
    reason: FinishReason = "length" if finish in _CUT_OFF else "stop"
    return Reply(
        CaptionOutcome(
            text=_valid(content).strip(),
            finish_reason=reason,
            prompt_tokens=_count(usage, "prompt_tokens"),
            output_tokens=_count(usage, "completion_tokens"),
            sent_width=size[0] if size else None,
            sent_height=size[1] if size else None,
        )
    )


def failure(error: str, detail: str, passing: bool, gone: bool = False) -> Reply:
    """A try that gave no caption."""
    return Reply(CaptionOutcome(error=error, detail=detail), passing, gone=gone)


def _refusal(status: int, retry_after: str | None, answer: Any, words: str) -> Reply:
    """An answer with an error's status."""
    wait = _seconds(retry_after)
    error = answer.get("error") if isinstance(answer, dict) else None
    codes = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    busy = status in _BUSY_STATUSES or (status == 503 and wait is not None)
    busy = busy and _EMPTY_ACCOUNT not in codes
    passing = busy or status in _PASSING_STATUSES
    return Reply(
        CaptionOutcome(error=f"http_{status}", detail=words), passing, busy=busy, wait=wait
    )


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):  # invalid UTF-8 is a ValueError; depth is not
        return None


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, Mapping) else None
    plausible = type(count) is int and 0 <= count <= _MOST_TOKENS
    return count if plausible else None


def _valid(text: str) -> str:
    """`text` without lone surrogates, which JSON can spell and no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode()


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds from now: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(retry_after)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _beginning(raw: bytes, key: str) -> str:
    """The first words of an answer for a person, without pictures, keys and control characters."""
    head = raw[: 1 << 16]
    if key:
        head = head.replace(key.encode(), b"***")
    head = _BEARER.sub(rb"\1***", _PICTURE.sub(rb"\1...", head))
    text = "".join(c if c.isprintable() else " " for c in head.decode(errors="replace"))
    return " ".join(text.split())[:_DETAIL_CHARACTERS]
