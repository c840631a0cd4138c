"""A chat request as OpenAI's protocol spells it, checked and read: JSON in, one row out."""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recaption.engines.protocol import Sampling

_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.I)
_DEFAULT_TOKENS = 256
_MOST_TEMPERATURE = 5.0
_SEEDS = 2**31

# What they ask for is what we do anyway, or it does not reach the words.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "stream": (None, False),
    "logprobs": (None, False),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "stop": (None, []),
    "tools": (None, []),
}
_IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier"})
_READ = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k",
        "seed", "repetition_penalty",
    }
)  # fmt: skip


class BadRequestError(Exception):
    """The client's mistake, in one sentence; `param` names the field, `status` is HTTP's."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True)
class ChatRequest:
    """One row for an engine.

    Attributes:
        model: as the client names it.
        prompt: the user turn's text.
        system: the system turn; empty means none.
        picture: an encoded file; None where there is none, or where `picture_url` names it.
        picture_url: an http or https address.
        seed: 0 <= seed < 2**31; random where the client gave none.
    """

    model: str
    prompt: str
    system: str
    picture: bytes | None
    picture_url: str | None
    sampling: Sampling
    seed: int


def parse_chat_request(raw: bytes, most_tokens: int) -> ChatRequest:
    """Read a request.

    One user turn with at most one picture, behind at most one system turn. A field that would
    change the answer and that no engine knows is refused, never ignored.

    Args:
        most_tokens: limit of `max_tokens`.

    Raises:
        BadRequestError: it is not JSON, or asks for what cannot be done.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequestError("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise BadRequestError("The body is not a JSON object.")
    for name, value in body.items():
        if name in _READ or name in _IGNORED:
            continue
        if name not in _HARMLESS:
            raise BadRequestError(f"The field {name!r} is not known here.", name)
        if not any(value == known and type(value) is type(known) for known in _HARMLESS[name]):
            raise BadRequestError(f"This server cannot do what {name!r} asks for.", name)
    model = body.get("model")
    if not isinstance(model, str):
        raise BadRequestError("'model' must be a string.", "model")
    system, content = _turns(body.get("messages"))
    prompt, address = _content(content)
    picture = _data(address) if address is not None and _DATA_URI.match(address) else None
    if address is not None and picture is None and not address.startswith(("http://", "https://")):
        raise BadRequestError(
            "'image_url' must be data:image/...;base64,... or an http address.", "messages"
        )
    seed = _number(body, "seed", None, whole=True)
    return ChatRequest(
        model=model,
        prompt=prompt,
        system=system,
        picture=picture,
        picture_url=address if picture is None else None,
        sampling=_sampling(body, most_tokens),
        seed=random.randrange(_SEEDS) if seed is None else int(seed) % _SEEDS,
    )


def _turns(messages: Any) -> tuple[str, Any]:
    """The system turn's text and the user turn's content."""
    turns = messages if isinstance(messages, list) else []
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in turns]
    if roles == ["user"]:
        return "", turns[0].get("content")
    if len(roles) == 2 and roles[0] in ("system", "developer") and roles[1] == "user":
        system, address = _content(turns[0].get("content"))
        if address is None:
            return system, turns[1].get("content")
    raise BadRequestError(
        "'messages' must hold one user turn, behind at most one system turn without a picture.",
        "messages",
    )


def _content(content: Any) -> tuple[str, str | None]:
    """Text and picture address of a turn."""
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list):
        raise BadRequestError("A turn's 'content' must be a string or a list.", "messages")
    texts: list[str] = []
    addresses: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            place = part.get("image_url")
            address = place.get("url") if isinstance(place, dict) else place
            if not isinstance(address, str):
                raise BadRequestError("An 'image_url' must hold a 'url'.", "messages")
            addresses.append(address)
        else:
            raise BadRequestError(
                "Parts of a turn must be of type 'text' or 'image_url'.", "messages"
            )
    if len(addresses) > 1:
        raise BadRequestError("A request can hold one picture only.", "messages")
    return "\n".join(texts), addresses[0] if addresses else None


def _data(address: str) -> bytes:
    try:
        return base64.b64decode(address.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise BadRequestError("The picture is not valid base64.", "messages") from None


def _sampling(body: Mapping[str, Any], most_tokens: int) -> Sampling:
    tokens = _number(body, "max_completion_tokens", None, 1, most_tokens, whole=True)
    if tokens is None:
        tokens = _number(body, "max_tokens", None, 1, most_tokens, whole=True)
    temperature = _number(body, "temperature", 1.0, 0.0, _MOST_TEMPERATURE) or 0.0
    penalty = _number(body, "repetition_penalty", 1.0, 0.0, 10.0)
    top_p = _number(body, "top_p", 1.0, 0.0, 1.0)
    # -1 is how vLLM spells "all words".
    top_k = _number(body, "top_k", 0, -1, whole=True)
    if top_p == 0.0 or penalty == 0.0:
        name = "top_p" if top_p == 0.0 else "repetition_penalty"
        raise BadRequestError(f"{name!r} must be above 0.", name)
    limit = int(tokens if tokens is not None else min(_DEFAULT_TOKENS, most_tokens))
    if temperature == 0.0:
        # Nothing is drawn, so all greedy requests can share a batch.
        return Sampling(limit, repetition_penalty=penalty or 1.0)
    return Sampling(limit, temperature, top_p or 1.0, max(0, int(top_k or 0)), penalty or 1.0)


def _number(
    body: Mapping[str, Any],
    name: str,
    default: float | None,
    low: float = float("-inf"),
    high: float = float("inf"),
    whole: bool = False,
) -> float | None:
    value = body.get(name)
    if value is None:
        return default
    right = type(value) is int if whole else type(value) in (int, float)
    if not right or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        bounds = "" if low == float("-inf") else f" of at least {low:g}"
        if high != float("inf"):
            bounds = f" from {low:g} to {high:g}"
        raise BadRequestError(f"{name!r} must be {kind}{bounds}.", name)
    return value  # type: ignore[no-any-return]
