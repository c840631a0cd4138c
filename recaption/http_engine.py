"""Captions from an OpenAI-compatible server (vLLM, SGLang, any provider): one outcome a row.

A bounded number of requests is in flight at any time. A server that is busy, broken or gone for a
while costs time and, in the end, the row; it never ends the run, and what is no caption (an HTML
error page, a JSON error with status 200) is never taken for one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import aiohttp

from curate.errors import ConfigError
from recaption.engine import (
    BROKEN_PICTURE,
    NO_PICTURE,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)
from recaption.http_reply import CONNECTION, TIMEOUT, Reply, failure, read, understand
from recaption.pictures import BrokenPictureError, PictureFormat, encode, for_sending

T = TypeVar("T")

# Longer waits than this are a closed shop, not a busy one; the row's next try will tell.
_MAX_WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """Where requests go and how patiently.

    Attributes:
        base_url: such as http://localhost:8000/v1.
        model: its name on the server.
        api_key_env: NAME of the environment variable with the key; empty sends none.
        timeout: seconds one request may take.
        attempts: tries of one request that meets faults (5xx, HTML, a dropped connection).
        patience: seconds that one row goes on asking a server that says it is busy (429).
        first_wait: seconds before the second try; doubles with each try, plus up to as much again
            at random, so that many clients do not come back at once.
    """

    base_url: str
    model: str = ""
    api_key_env: str = ""
    timeout: float = 120.0
    attempts: int = 6
    patience: float = 600.0
    first_wait: float = 0.5

    def headers(self) -> dict[str, str]:
        """Request headers.

        Raises:
            ConfigError: the environment variable is not set.
        """
        if not self.api_key_env:
            return {}
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise ConfigError(
                f"The environment variable {self.api_key_env}, named by api_key_env, is not set."
            )
        return {"Authorization": f"Bearer {key}"}


class HttpEngine:
    """A captioner behind an OpenAI-compatible server; see CaptionEngine."""

    name = "http"
    revision = ""

    def __init__(
        self,
        server: Server,
        in_flight: int = 64,
        image_size: int = 512,
        picture_format: PictureFormat = "jpeg",
    ) -> None:
        """Ask for one caption of a grey picture, so that a wrong address or key shows here.

        Args:
            server: where and how.
            in_flight: requests at any time; no effect on the captions.
            image_size: longest side in pixels that is sent; 0 sends the stored size.
            picture_format: in which pictures are sent.

        Raises:
            ConfigError: nobody answers at the address, or it refuses the key, path or model.
        """
        self._server = server
        self._in_flight = in_flight
        self._image_size = image_size
        self._format = picture_format
        self._headers = server.headers()
        self._probe()

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine."""
        return _run(self._caption(request, self._server))

    async def _caption(self, request: CaptionRequest, server: Server) -> list[CaptionOutcome]:
        outcomes: list[CaptionOutcome | None] = [None] * len(request)
        rows = iter(range(len(request)))
        gate = _Gate()
        connector = aiohttp.TCPConnector(limit=self._in_flight)
        timeout = aiohttp.ClientTimeout(total=self._server.timeout)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=self._headers
        ) as session:

            async def work(rows: Iterator[int]) -> None:
                # All workers draw from one iterator, so a slow row holds up no other.
                for row in rows:
                    outcomes[row] = await self._caption_row(session, gate, request, row, server)

            workers = min(self._in_flight, len(request))
            await asyncio.gather(*(work(rows) for _ in range(workers)))
        return [outcome for outcome in outcomes if outcome is not None]

    async def _caption_row(
        self,
        session: aiohttp.ClientSession,
        gate: _Gate,
        request: CaptionRequest,
        row: int,
        server: Server,
    ) -> CaptionOutcome:
        stored = request.pictures[row]
        if stored is None:
            return CaptionOutcome(error=NO_PICTURE)
        try:
            picture, size = await asyncio.to_thread(
                for_sending, stored, self._image_size, self._format
            )
        except BrokenPictureError as error:
            return CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
        body = self._body(request, row, picture)
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + server.patience
        faults = tries = 0
        while True:
            await gate.wait()
            reply = await self._post(session, body, size)
            tries += 1
            faults += reply.passing and not reply.busy
            spent = clock() >= give_up_at if reply.busy else faults >= server.attempts
            if spent or not reply.passing:
                return reply.outcome
            pause = min(
                server.first_wait * 2 ** min(tries - 1, 10) * random.uniform(1.0, 2.0),
                _MAX_WAIT_SECONDS,
            )
            if reply.busy:
                # A busy server is busy for every request in flight, so all of them wait.
                gate.close(min(pause if reply.wait is None else reply.wait, _MAX_WAIT_SECONDS))
            else:
                await asyncio.sleep(pause)

    def _body(self, request: CaptionRequest, row: int, picture: bytes) -> bytes:
        address = f"data:image/{self._format};base64,{base64.b64encode(picture).decode('ascii')}"
        turns: list[dict[str, Any]] = [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": address}},
                    {"type": "text", "text": request.prompts[row]},
                ],
            }
        ]
        if request.system:
            turns.insert(0, {"role": "system", "content": request.system})
        body = {"model": self._server.model, "messages": turns}
        body.update(_sampling_fields(request.sampling, request.seeds[row]))
        return json.dumps(body).encode()

    async def _post(
        self, session: aiohttp.ClientSession, body: bytes, size: tuple[int, int]
    ) -> Reply:
        """One try."""
        try:
            async with session.post(
                f"{self._server.base_url}/chat/completions",
                data=body,
                headers={"Content-Type": "application/json"},
                # A redirect could carry the key and the pictures to somewhere else.
                allow_redirects=False,
            ) as response:
                raw = await read(response)
                return understand(response.status, response.headers.get("Retry-After"), raw, size)
        except TimeoutError:
            return failure(TIMEOUT, f"no answer within {self._server.timeout:g} s", passing=True)
        except (aiohttp.ClientError, OSError) as error:
            return failure(CONNECTION, f"{type(error).__name__}: {error}", passing=True)

    def _probe(self) -> None:
        grey = encode(_grey(), "png")
        request = CaptionRequest([grey], ["Describe this image."], [0], Sampling(max_new_tokens=8))
        hasty = replace(self._server, attempts=1, patience=0.0)
        outcome = _run(self._caption(request, hasty))[0]
        address = self._server.base_url
        if outcome.error == CONNECTION:
            raise ConfigError(f"No captioner answers at {address} ({outcome.detail}).")
        if outcome.error in ("http_401", "http_403"):
            raise ConfigError(
                f"The server at {address} refuses access ({outcome.error[5:]}); name the "
                f"environment variable with its key with api_key_env."
            )
        if outcome.error in ("http_404", "http_405"):
            raise ConfigError(
                f"The server at {address} has no model {self._server.model!r} or no "
                f"/chat/completions; the URL usually ends in /v1 ({outcome.detail})."
            )


class _Gate:
    """Holds back all workers of a run until a moment that the server named."""

    def __init__(self) -> None:
        self._open_at = 0.0

    def close(self, seconds: float) -> None:
        self._open_at = max(self._open_at, asyncio.get_running_loop().time() + seconds)

    async def wait(self) -> None:
        while (left := self._open_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)


def served_model(server: Server) -> str:
    """The only model that a server offers.

    Raises:
        ConfigError: nobody answers, or it offers none or several.
    """
    names = _run(_model_names(server))
    if len(names) != 1:
        offered = ", ".join(names[:10]) or "none"
        raise ConfigError(
            f"The server at {server.base_url} offers {len(names)} models ({offered}); name the "
            f"one to use with served_model."
        )
    return names[0]


async def _model_names(server: Server) -> list[str]:
    timeout = aiohttp.ClientTimeout(total=min(server.timeout, 30.0))
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=server.headers()) as session,
            session.get(f"{server.base_url}/models", allow_redirects=False) as response,
        ):
            status, raw = response.status, await read(response)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ConfigError(
            f"No captioner answers at {server.base_url} ({type(error).__name__}: {error})."
        ) from error
    try:
        return [str(model["id"]) for model in json.loads(raw)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The server at {server.base_url} does not list its models (status {status}); name "
            f"the model with served_model."
        ) from error


def _sampling_fields(sampling: Sampling, seed: int) -> dict[str, Any]:
    """Fields of the request; those outside of OpenAI's own set only where they matter."""
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0:
        fields["seed"] = seed
        fields["top_p"] = sampling.top_p
        if sampling.top_k:
            fields["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        fields["repetition_penalty"] = sampling.repetition_penalty
    return fields


def _grey() -> Any:
    from PIL import Image

    return Image.new("RGB", (64, 64), (128, 128, 128))


def _run(work: Coroutine[Any, Any, T]) -> T:
    # On a thread of its own, because a notebook's thread already runs an event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
