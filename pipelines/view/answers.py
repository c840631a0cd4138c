"""What an endpoint gets and gives: checked parameters, JSON that a browser reads as it was meant.

An endpoint is a plain function of its parameters. It runs in a thread of the server's pool, and
what it raises becomes an answer (pipelines.view.app).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from curate.base.errors import ConfigError

LARGEST_EXACT = 2**53
"""JavaScript's numbers are doubles: integers beyond lose their last digits, and become texts."""
LARGEST_BODY = 1 << 25
"""Bytes of a POST: a picture to search by, in base64."""


class Asked(Mapping[str, str]):
    """The parameters of a GET: those of the path before those of the query."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._values = {**request.query_params, **request.path_params}

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str, default: str = "") -> str:
        """A text; `default` where it is missing or empty."""
        return self._values.get(name) or default

    def whole(self, name: str, default: int, low: int = 0, high: int = LARGEST_EXACT) -> int:
        """A whole number from `low` to `high`; ConfigError for anything else."""
        text = self._values.get(name) or str(default)
        try:
            number = int(text) if len(text) < 20 else high + 1
        except ValueError:
            number = high + 1
        if not low <= number <= high:
            raise ConfigError(f"{name} = {text[:40]!r} is no whole number from {low} to {high}.")
        return number

    def flag(self, name: str) -> bool:
        """True for 1 or true."""
        return self._values.get(name, "") in ("1", "true")

    def names(self, name: str) -> list[str]:
        """`a,b` as a list, without repeats; a comma within a name stands as %2C."""
        parts = self._values.get(name, "").split(",")
        return list(dict.fromkeys(unquote(part) for part in parts if part))

    def one_of(self, name: str, *allowed: str) -> str:
        """One of the given words, by default the first."""
        word = self._values.get(name) or allowed[0]
        if word not in allowed:
            raise ConfigError(f"{name} = {word[:40]!r} is none of {', '.join(allowed)}.")
        return word


def get(path: str, answers: Callable[[Asked], Any]) -> Route:
    """A GET; `answers` gives a value, which becomes JSON, or a response of its own."""

    def endpoint(request: Request) -> Response:
        value = answers(Asked(request))
        return value if isinstance(value, Response) else answer(value)

    return Route(path, endpoint, methods=["GET"])


def post(path: str, does: Callable[[dict[str, Any]], Any]) -> Route:
    """A POST of one JSON object; `does` gives the value of the answer."""

    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                raise ConfigError(f"What was sent is larger than {LARGEST_BODY >> 20} MiB.")
        value = await run_in_threadpool(lambda: does(_object(bytes(body))))
        return value if isinstance(value, Response) else answer(value)

    return Route(path, endpoint, methods=["POST"])


def answer(value: Any, status: int = 200) -> Response:
    """A JSON response: NaN and infinities are null, times ISO, and see LARGEST_EXACT."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate, which no valid Parquet holds, would end the answer.
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


def plain(value: Any) -> Any:
    """The same in what JSON has."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) <= LARGEST_EXACT else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigError("What was sent is not JSON.") from error
    if not isinstance(value, dict):
        raise ConfigError("What was sent is not a JSON object.")
    return value
