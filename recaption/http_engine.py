"""Captions from an OpenAI-compatible server (vLLM, SGLang, any provider): one outcome a row.

A bounded number of requests is in flight at any time. A server that is busy, broken or gone for a
while costs time and, in the end, the row; it never ends the run, and what is no caption (an HTML
error page, a JSON error with status 200) is never taken for one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import aiohttp
from PIL import Image
from yarl import URL

from curate.errors import ConfigError
from recaption.chat_body import ChatBodies
from recaption.engine import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)
from recaption.http_reply import CONNECTION, TIMEOUT, Reply, failure, read, understand
from recaption.loop_thread import LoopThread
from recaption.pictures import BrokenPictureError, PictureFormat, encode
from recaption.pictures_ahead import PicturesAhead
from recaption.server import Server

logger = logging.getLogger(__name__)

# Longer waits than this are a closed shop, not a busy one; the row's next try will tell.
_MAX_WAIT_SECONDS = 120.0
_CONNECT_SECONDS = 30.0
_TRIAL = Sampling(max_new_tokens=16)


class HttpEngine:
    """A captioner behind an OpenAI-compatible server; see CaptionEngine.

    Connections stay open between calls; several threads may call at once and share the window.
    `latency_seconds` of an outcome is the time of the request that gave it, waits not included.
    """

    name = "http"
    revision = ""

    def __init__(
        self,
        server: Server,
        in_flight: int = 64,
        image_size: int = 512,
        picture_format: PictureFormat = "jpeg",
        trial: Sampling = _TRIAL,
    ) -> None:
        """Ask for one caption of a grey picture, so that a wrong address or key shows here.

        Args:
            server: where and how.
            in_flight: requests at any time; no effect on the captions.
            image_size: longest side in pixels that is sent; 0 sends the stored size.
            picture_format: in which pictures are sent.
            trial: of that first caption; with all that later requests may hold, a field that the
                server refuses shows here as well.

        Raises:
            ConfigError: nobody answers at the address, or it refuses the key, path, model or a
                field of the request.
        """
        self._server = server
        self._url = URL(server.address("chat/completions"), encoded=True)
        self._key = server.key()
        self._in_flight = in_flight
        self._image_size = image_size
        self._format = picture_format
        self._loop = LoopThread()
        # Decoders release the GIL, so pictures that need work get it on all cores.
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="encode")
        self._client = self._loop.run(self._open())
        self._loop.at_end(self._client.session.close)
        self._probe(trial)

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine."""
        return self._loop.run(self._caption(request, self._server))

    def close(self) -> None:
        """Close all connections; an engine that is dropped closes them by itself."""
        self._loop.close()
        self._threads.shutdown(wait=False)

    async def _open(self) -> _Client:
        server = self._server
        connect = min(_CONNECT_SECONDS, server.timeout)
        return _Client(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
                timeout=aiohttp.ClientTimeout(total=server.timeout, sock_connect=connect),
                headers={**server.headers(), "Content-Type": "application/json"},
                # A server's cookies would tie rows to one another.
                cookie_jar=aiohttp.DummyCookieJar(),
            ),
            asyncio.Semaphore(self._in_flight),
            _Gate(),
            answered_at=asyncio.get_running_loop().time(),
        )

    # ---- rows ---------------------------------------------------------------------------------

    async def _caption(self, request: CaptionRequest, server: Server) -> list[CaptionOutcome]:
        outcomes: dict[int, CaptionOutcome] = {}
        bodies = ChatBodies(server, request, self._format)
        # All senders draw from one source, so a slow row holds up no other.
        source = PicturesAhead(request, self._threads, self._image_size, self._format)

        async def send() -> None:
            for row, waiting in source:
                try:
                    picture, size = (
                        await waiting if isinstance(waiting, asyncio.Future) else waiting
                    )
                    body = bodies.body(row, picture)
                    limit = request.sampling.max_new_tokens
                    outcomes[row] = await self._ask(body, size, server, limit)
                except BrokenPictureError as error:
                    outcomes[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
                except Exception as error:
                    # Whatever it was, it was this row's; the others are still to be captioned.
                    logger.exception("a row could not be captioned")
                    outcomes[row] = CaptionOutcome(error=ENGINE_ERROR, detail=type(error).__name__)

        senders = min(self._in_flight, len(request))
        async with asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(send())
        return [outcomes[row] for row in range(len(request))]

    async def _ask(
        self, body: bytes, size: tuple[int, int] | None, server: Server, limit: int
    ) -> CaptionOutcome:
        """Ask until there is a caption, a lasting fault, or no more patience."""
        clock, client = asyncio.get_running_loop().time, self._client
        give_up_at = clock() + server.patience
        faults = tries = 0
        while True:
            await client.gate.wait()
            async with client.window:
                started = clock()
                reply = await self._post(body, size, limit)
                latency = clock() - started
            tries += 1
            if reply.gone:
                # Counted from the server's last answer and not for each row, or a million rows
                # would each wait for a server that was switched off.
                spent = clock() >= client.answered_at + server.patience
            else:
                client.answered_at = clock()
                faults += reply.passing and not reply.busy
                spent = clock() >= give_up_at if reply.busy else faults >= server.attempts
            if spent or not reply.passing:
                return replace(reply.outcome, latency_seconds=latency)
            pause = min(
                server.first_wait * 2 ** min(tries - 1, 10) * random.uniform(1.0, 2.0),
                _MAX_WAIT_SECONDS,
            )
            if reply.busy:
                # A busy server is busy for every request in flight, so all of them wait.
                client.gate.close(
                    min(pause if reply.wait is None else reply.wait, _MAX_WAIT_SECONDS)
                )
            else:
                await asyncio.sleep(pause)

    async def _post(self, body: bytes, size: tuple[int, int] | None, limit: int) -> Reply:
        """One try."""
        try:
            # A redirect could carry the key and the pictures to somewhere else.
            async with self._client.session.post(
                self._url, data=body, allow_redirects=False
            ) as response:
                raw = await read(response)
                wait = response.headers.get("Retry-After")
                return understand(response.status, wait, raw, size, self._key, limit)
        # The order matters: an aiohttp connect error may be a TimeoutError or an OSError as well.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return failure(CONNECTION, f"{type(error).__name__}: {error}", passing=True, gone=True)
        except TimeoutError:
            return failure(TIMEOUT, f"no answer within {self._server.timeout:g} s", passing=True)
        except (aiohttp.ClientError, OSError) as error:
            return failure(CONNECTION, f"{type(error).__name__}: {error}", passing=True)

    # ---- set-up -------------------------------------------------------------------------------

    def _probe(self, trial: Sampling) -> None:
        grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), self._format)
        request = CaptionRequest([grey], ["Describe this image."], [0], trial)
        hasty = replace(self._server, attempts=1, patience=0.0)
        outcome = self._loop.run(self._caption(request, hasty))[0]
        address, detail = self._server.base_url, outcome.detail
        if outcome.error == CONNECTION:
            raise ConfigError(f"No captioner answers at {address} ({detail}).")
        if outcome.error in ("http_401", "http_403"):
            raise ConfigError(
                f"The server at {address} refuses access ({outcome.error[5:]}); name the "
                f"environment variable with its key with api_key_env."
            )
        if outcome.error in ("http_404", "http_405"):
            raise ConfigError(
                f"The server at {address} has no model {self._server.model!r} or no "
                f"/chat/completions; the URL usually ends in /v1 ({detail})."
            )
        if outcome.error in ("http_400", "http_422"):
            raise ConfigError(
                f"The server at {address} refuses the request ({detail}); a field that it does "
                f"not take can be left out with omit_fields or renamed with token_limit_field."
            )


@dataclass
class _Client:
    """What lives on the engine's loop.

    Attributes:
        answered_at: when the server last answered anything, on the loop's clock.
    """

    session: aiohttp.ClientSession
    window: asyncio.Semaphore
    gate: _Gate
    answered_at: float


class _Gate:
    """Holds back all senders until a moment that the server named."""

    def __init__(self) -> None:
        self._open_at = 0.0

    def close(self, seconds: float) -> None:
        self._open_at = max(self._open_at, asyncio.get_running_loop().time() + seconds)

    async def wait(self) -> None:
        while (left := self._open_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)
