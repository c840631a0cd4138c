"""An OpenAI-compatible server over any caption engine: /v1/models and /v1/chat/completions.

For machines that share one captioner, for other programs that speak the protocol, and for trying
the HTTP engine where no GPU server is at hand. It is no public web server: it listens on loopback
by default, and a key guards it where one is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import signal
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from curate.base.errors import ConfigError, StageError
from curate.base.reasons import FailureError
from curate.download.safe_http import HttpLimits, SafeClient
from recaption.engines.batching import Batcher, Kind, QueueFullError
from recaption.engines.chat_request import BadRequestError, ChatRequest, parse_chat_request
from recaption.engines.protocol import BROKEN_PICTURE, NO_PICTURE, CaptionEngine, CaptionOutcome

logger = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ServerLimits:
    """What the server takes and how long it waits.

    Attributes:
        batch_size: rows a batch at most.
        max_wait: seconds that a request waits for company while the engine is free.
        most_waiting: requests that may wait; further ones are answered with 429.
        most_tokens: of `max_tokens`.
        most_bytes: of a request's body.
        allow_urls: whether pictures may be named by http address; private networks never.
        stop_seconds: how long requests may take to end after SIGTERM.
    """

    batch_size: int = 32
    max_wait: float = 0.02
    most_waiting: int = 256
    most_tokens: int = 1024
    most_bytes: int = 16 << 20
    allow_urls: bool = False
    stop_seconds: float = 60.0


class CaptionServer:
    """The protocol's two calls. Made on the event loop that serves them."""

    def __init__(
        self, engine: CaptionEngine, model: str, limits: ServerLimits, key: str = ""
    ) -> None:
        """
        Args:
            model: the name that clients have to use.
            key: that clients have to send; empty asks for none.
        """
        self._model = model
        self._limits = limits
        self._key = key
        self._started = int(time.time())
        self._stopping = False
        self._fetcher = (
            SafeClient(HttpLimits(max_bytes=limits.most_bytes)) if limits.allow_urls else None
        )
        self.batcher = Batcher(engine, limits.batch_size, limits.max_wait, limits.most_waiting)

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=self._limits.most_bytes, middlewares=[self._guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def stop(self) -> None:
        """Refuse new requests and finish those that wait."""
        self._stopping = True
        await self.batcher.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every answer is JSON, errors included."""
        try:
            if self._stopping:
                return _error(503, "The server is stopping.", headers={"Connection": "close"})
            if self._key and not self._has_key(request):
                return _error(401, "The key is missing or wrong.", "authentication_error")
            return await handler(request)
        except BadRequestError as error:
            return _error(error.status, str(error), param=error.param)
        except QueueFullError:
            return _error(
                429, "Too many requests wait.", "rate_limit", headers={"Retry-After": "1"}
            )
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"The body has more than {self._limits.most_bytes} bytes.")
        except web.HTTPException as error:
            return _error(error.status, error.reason)

    def _has_key(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        return hmac.compare_digest(given, f"Bearer {self._key}".encode())

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok"})

    async def _models(self, _: web.Request) -> web.StreamResponse:
        model = {"id": self._model, "object": "model", "created": self._started}
        return web.json_response({"object": "list", "data": [{**model, "owned_by": "caption-lab"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = parse_chat_request(await request.read(), self._limits.most_tokens)
        if asked.model != self._model:
            message = f"There is no model {asked.model!r} here; it is {self._model!r}."
            raise BadRequestError(message, "model", status=404)
        picture = asked.picture
        if asked.picture_url is not None:
            picture = await self._fetched(asked.picture_url)
        kind = Kind(asked.sampling, asked.system, picture is not None)
        outcome = await self.batcher.caption(kind, picture, asked.prompt, asked.seed)
        return self._answer(asked, outcome)

    async def _fetched(self, url: str) -> bytes:
        if self._fetcher is None:
            raise BadRequestError(
                "This server fetches no pictures; send them as data:image/...;base64,...",
                "messages",
            )
        try:
            body = await asyncio.to_thread(self._fetcher.fetch, url)
        except FailureError as error:
            raise BadRequestError(
                f"The picture cannot be fetched ({error.failure.reason.value}).", "messages"
            ) from error
        return body.content

    def _answer(self, asked: ChatRequest, outcome: CaptionOutcome) -> web.StreamResponse:
        if outcome.error is not None:
            words = f"{outcome.error}: {outcome.detail}" if outcome.detail else outcome.error
            theirs = outcome.error in (BROKEN_PICTURE, NO_PICTURE)
            return _error(400 if theirs else 500, words, code=outcome.error)
        read, written = outcome.prompt_tokens or 0, outcome.output_tokens or 0
        message = {"role": "assistant", "content": outcome.text}
        choice = {"index": 0, "message": message, "finish_reason": outcome.finish_reason}
        return web.json_response(
            {
                "id": f"chatcmpl-{uuid.uuid4().hex}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": asked.model,
                "choices": [{**choice, "logprobs": None}],
                "usage": {
                    "prompt_tokens": read,
                    "completion_tokens": written,
                    "total_tokens": read + written,
                },
            }
        )


def bound(host: str, port: int) -> socket.socket:
    """A socket on the address, taken before a model is loaded; port 0 takes a free one.

    Raises:
        ConfigError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Cannot listen on {host} port {port} ({error.strerror or error})."
        ) from error
    return listening


async def serve(
    engine: CaptionEngine,
    model: str,
    limits: ServerLimits,
    listening: socket.socket,
    key: str = "",
    ready: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was taken in.

    Args:
        listening: bound to the address; see `bound`.
        ready: called with the base URL once requests are taken.

    Raises:
        StageError: the engine broke down; the process has to be replaced.
    """
    server = CaptionServer(engine, model, limits, key)
    runner = web.AppRunner(
        server.app(),
        access_log=None,
        # A client that goes away takes its request out of the queue.
        handler_cancellation=True,
        shutdown_timeout=limits.stop_seconds,
    )
    await runner.setup()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        await web.SockSite(runner, listening).start()
        host, port = listening.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        stop = asyncio.create_task(asked.wait())
        await asyncio.wait({stop, server.batcher.worker}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.stop_seconds):
                await server.stop()
    finally:
        await runner.cleanup()
    if server.batcher.worker.done() and not server.batcher.worker.cancelled():
        error = server.batcher.worker.exception()
        if error is not None:
            raise StageError(f"The captioner broke down ({type(error).__name__}: {error}).")


def _error(
    status: int,
    message: str,
    kind: str = "",
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)
