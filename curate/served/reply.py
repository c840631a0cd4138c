"""What a server's answer means: a caption, or a fault with its name and whether to ask again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from curate.base.characters import encodable
from curate.download.hosts import retry_after as seconds_to_wait
from curate.served.finish import BROKEN_OFF, CUT_OFF, FILTERED, WHOLE, finish_word
from curate.served.outcome import NO_ANSWER, CaptionOutcome

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
# A text may come with 201 or 202 as well.
_CAPTION_STATUSES = frozenset({200, 201, 202, 203, 206})
# 429 as well, but waiting fills no account.
_EMPTY_ACCOUNT = "insufficient_quota"
# Types of content parts: a caption's text, and reasoning.
_TEXT_PARTS = frozenset({None, "", "text", "output_text", "markdown"})
_THOUGHT_PARTS = frozenset(
    {"reasoning", "thinking", "redacted_thinking", "reasoning_text", "reasoning.text", "thought"}
)
_SENTENCE_ENDS = (".", "!", "?", "…")
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
    limit: int | None = None,
) -> Reply:
    """Tell a caption from everything else that a server may send.

    Args:
        status, retry_after, raw: of the HTTP response.
        size: (width, height) of the picture that was sent, in pixels; None where none was.
        key: of the server, never to stand in an error's detail.
        limit: output tokens that were asked for at most; None where nothing was said.
    """
    answer = _json(raw)
    if status not in _CAPTION_STATUSES:
        return _refusal(status, retry_after, answer, _beginning(raw, key))
    if answer is None:
        return failure(NOT_JSON, _beginning(raw, key), passing=True)
    if isinstance(answer, dict) and answer.get("error"):
        # Gateways wrap the real status into an answer of status 200, also beside half a caption.
        code = answer["error"].get("code") if isinstance(answer["error"], dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            return _refusal(code, retry_after, answer, _beginning(raw, key))
        if not FILTERED.isdisjoint(_codes(answer)):
            return failure(CONTENT_FILTER, _beginning(raw, key), passing=False)
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content = message["content"]
        finish = choice.get("finish_reason")
        refusal = message.get("refusal")
        thought = message.get("reasoning_content") or message.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError):
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    if choice.get("error"):  # gateways put it beside what was written until then
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    word = finish_word(finish)
    if word not in WHOLE | CUT_OFF:
        return _unfinished(word)
    text: str | None = content if isinstance(content, str) else None
    if isinstance(content, list | dict):
        parts = _parts(content)
        text = _joined(parts["text"]) or None
        refusal = refusal or _joined(parts["refusal"])
        thought = thought or parts["thought"]
    if isinstance(refusal, str) and refusal.strip():
        return failure(REFUSED, encodable(refusal)[:_DETAIL_CHARACTERS], passing=False)
    if not text and thought:
        detail = (
            "all output tokens went into reasoning; raise max_new_tokens or switch reasoning off "
            "with extra_body"
        )
        return failure(ONLY_REASONING, detail, passing=False)
    if text is None:
        return failure(NO_ANSWER, _beginning(raw, key), passing=True)
    written = _count(answer.get("usage"), "completion_tokens")
    # Some servers say "stop" whatever ended the text; their own count tells.
    cut = word in CUT_OFF or (limit is not None and written is not None and written >= limit)
    return Reply(
        CaptionOutcome(
            text=encodable(text).strip(),
            finish_reason="length" if cut else "stop",
            prompt_tokens=_count(answer.get("usage"), "prompt_tokens"),
            output_tokens=written,
            sent_width=size[0] if size else None,
            sent_height=size[1] if size else None,
            first_tokens=_first_tokens(choice),
        )
    )


def failure(error: str, detail: str, passing: bool, gone: bool = False) -> Reply:
    """A try that gave no caption."""
    return Reply(CaptionOutcome(error=error, detail=detail), passing, gone=gone)


def _unfinished(word: str) -> Reply:
    """The failure of an answer that ended with a word for neither a whole nor a cut-off text."""
    shown = "".join(c if c.isprintable() else " " for c in encodable(word))
    if word in FILTERED:
        detail = f"the server's filter withheld the caption: {shown}"
        return failure(CONTENT_FILTER, detail, passing=False)
    if word == "refusal":
        return failure(REFUSED, f"the server ended the answer with {shown}", passing=False)
    return failure(NO_ANSWER, f"the server broke off: {shown}", passing=word in BROKEN_OFF)


def _parts(content: Any) -> dict[str, list[str]]:
    """The texts of content parts, by what they are: "text", "refusal" or "thought".

    Whatever is no text (null, a number, a picture, a tool's call) adds nothing.
    """
    found: dict[str, list[str]] = {"text": [], "refusal": [], "thought": []}
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found["text"].append(part)
        elif isinstance(part, list):
            waiting.extend(reversed(part))
        elif isinstance(part, Mapping):
            kind = part.get("type")
            if isinstance(part.get("refusal"), str):
                found["refusal"].append(part["refusal"])
            elif kind in _THOUGHT_PARTS or part.get("thought"):  # Gemini marks its thoughts
                found["thought"].append(str(kind))
            elif kind in _TEXT_PARTS:
                text = part.get("text")
                # {"type": "text", "text": {"value": "..."}}, as in OpenAI's threads.
                text = text.get("value") if isinstance(text, Mapping) else text
                waiting.append(text if isinstance(text, str | list) else None)
    return found


def _joined(texts: list[str]) -> str:
    """Parts in their order; a new sentence stands apart from the one before."""
    joined = ""
    for text in texts:
        gap = " " if joined[-1:] in _SENTENCE_ENDS and text[:1].isalnum() else ""
        joined += gap + text
    return joined


def _refusal(status: int, retry_after: str | None, answer: Any, words: str) -> Reply:
    """An answer with an error's status."""
    wait = seconds_to_wait(retry_after)
    codes = _codes(answer)
    if status < 500 and not FILTERED.isdisjoint(codes):
        return failure(CONTENT_FILTER, words, passing=False)
    busy = status in _BUSY_STATUSES or (status == 503 and wait is not None)
    busy = busy and _EMPTY_ACCOUNT not in codes
    passing = busy or status in _PASSING_STATUSES
    return Reply(
        CaptionOutcome(error=f"http_{status}", detail=words), passing, busy=busy, wait=wait
    )


def _codes(answer: Any) -> set[str]:
    """The names that an error object gives its error, in one spelling."""
    error = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(error, Mapping):
        return set()
    inner = error.get("innererror") or error.get("inner_error")
    places = [error, inner] if isinstance(inner, Mapping) else [error]
    named = [place.get(name) for place in places for name in ("code", "type", "status")]
    return {finish_word(name) for name in named if isinstance(name, str)}


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):  # invalid UTF-8 is a ValueError; depth is not
        return None


def _first_tokens(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens with their log-probabilities; empty where the server gave none.

    No probability is above 1: a server may say anything.
    """
    try:
        found = choice["logprobs"]["content"][0]["top_logprobs"]
        told = [(str(one["token"]), float(one["logprob"])) for one in found]
    except (KeyError, IndexError, TypeError, ValueError):
        return ()
    return tuple((token, min(chance, 0.0)) for token, chance in told if not math.isnan(chance))


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, Mapping) else None
    plausible = type(count) is int and 0 <= count <= _MOST_TOKENS
    return count if plausible else None


def _beginning(raw: bytes, key: str) -> str:
    """The first words of an answer for a person, without pictures, keys and control characters."""
    head = raw[: 1 << 16]
    if key:
        head = head.replace(key.encode(), b"***")
    head = _BEARER.sub(rb"\1***", _PICTURE.sub(rb"\1...", head))
    text = "".join(c if c.isprintable() else " " for c in head.decode(errors="replace"))
    return " ".join(text.split())[:_DETAIL_CHARACTERS]
