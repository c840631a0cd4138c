"""Captions from an OpenAI-compatible server (vLLM, SGLang, any provider): one outcome a row.

A bounded number of requests is in flight at any time. A server that is busy, broken or gone for a
while costs time and, in the end, the row; it never ends the run, and what is no caption (an HTML
error page, a JSON error with status 200) is never taken for one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import aiohttp
from PIL import Image
from yarl import URL

from curate.base.errors import ConfigError
from curate.base.progress import advance
from recaption.engines.http.address import Server
from recaption.engines.http.body import ChatBodies
from recaption.engines.http.loop_thread import LoopThread
from recaption.engines.http.models import server_of
from recaption.engines.http.reply import (
    CONNECTION,
    CONTENT_FILTER,
    REFUSED,
    TIMEOUT,
    Reply,
    failure,
    read,
    understand,
)
from recaption.engines.identity import Captioner
from recaption.engines.pictures import BrokenPictureError, PictureFormat, encode
from recaption.engines.pictures_ahead import PicturesAhead
from recaption.engines.protocol import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)
from recaption.engines.settings import EngineSettings, Shown, ShownSettings

logger = logging.getLogger(__name__)

# Longer waits than this are a closed shop, not a busy one; the row's next try will tell.
_MAX_WAIT_SECONDS = 120.0
_CONNECT_SECONDS = 30.0
_TRIAL = Sampling(max_new_tokens=16)
# The trial is as patient as a person who waits for it: a server may be busy, or just have started.
_TRIAL_ATTEMPTS = 3
_TRIAL_PATIENCE_SECONDS = 60.0


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
        sees: bool = True,
    ) -> None:
        """Ask for one caption of a grey picture: a server that cannot give one shows here.

        Args:
            server: where and how.
            in_flight: requests at any time; no effect on the captions.
            image_size: longest side in pixels that is sent; 0 sends the stored size.
            picture_format: in which pictures are sent.
            trial: of that first caption; with all that later requests may hold, a field that the
                server refuses shows here as well.
            sees: whether pictures will be sent; without, the trial is a text alone.

        Raises:
            ConfigError: it gives none, in the server's own words. A filter that withholds one says
                nothing of other pictures, and is let pass.
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
        self._probe(trial, sees)

    @classmethod
    def opened(
        cls, settings: EngineSettings, captioner: Captioner, trial: Sampling, shown: Shown
    ) -> HttpEngine:
        """See recaption.engines.registry."""
        sees, shown = shown is not None, shown or ShownSettings()
        return cls(
            server_of(settings, captioner.model),
            in_flight=settings.in_flight,
            image_size=shown.image_size,
            picture_format=shown.image_format,
            trial=trial,
            sees=sees,
        )

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
                advance()

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
                if 300 <= response.status < 400:
                    return failure(f"http_{response.status}", _led_to(response), passing=False)
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

    def _probe(self, trial: Sampling, sees: bool) -> None:
        grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), self._format)
        request = CaptionRequest(
            [grey if sees else None],
            ["Describe this image." if sees else "Describe a red bicycle."],
            [0],
            trial,
        )
        server = replace(
            self._server,
            attempts=min(self._server.attempts, _TRIAL_ATTEMPTS),
            patience=min(self._server.patience, _TRIAL_PATIENCE_SECONDS),
        )
        outcome = self._loop.run(self._caption(request, server))[0]
        if (fault := _trial_fault(server, outcome, sees)) is not None:
            self.close()
            raise ConfigError(fault)


def _trial_fault(server: Server, outcome: CaptionOutcome, sees: bool) -> str | None:
    """One sentence on a trial that gave no caption; None where it gave one, or a filter spoke."""
    error, place = outcome.error or "", f"The server at {server.base_url}"
    said = (outcome.detail or "it gives no reason").rstrip(".")
    if error in (CONTENT_FILTER, REFUSED):
        return None
    if error == CONNECTION:
        return f"No captioner answers at {server.base_url} ({said})."
    if error in ("http_401", "http_403"):
        return (
            f"{place} refuses access ({error[5:]}: {said}); name the environment variable with its "
            f"key with api_key_env."
        )
    if error in ("http_404", "http_405"):
        return (
            f"{place} has no model {server.model!r} or no /chat/completions; the URL usually ends "
            f"in /v1 ({said})."
        )
    if error in ("http_400", "http_422"):
        unseeing = ", and a model that reads no pictures cannot caption" if sees else ""
        return (
            f"{place} refuses the request ({said}); a field that it does not take can be left out "
            f"with omit_fields or renamed with token_limit_field{unseeing}."
        )
    if outcome.text is not None and any(map(str.isalnum, outcome.text)):
        return None
    if outcome.text is not None:
        error, said = "no_answer", f"its answer is {outcome.text[:40]!r}"
    asked = "a grey picture" if sees else "a trial prompt"
    return f"{place} gave no text for {asked}, so nothing was begun ({error}: {said})."


def _led_to(response: aiohttp.ClientResponse) -> str:
    """Where a redirect leads, without the part of an address that may hold a secret."""
    location = response.headers.get("Location")
    if not location:
        return "redirects to no address"
    try:
        target = response.url.join(URL(location))
        return f"redirects to {target.with_query(None).with_fragment(None).with_user(None)}"
    except ValueError:
        return "redirects to no address"


@dataclass
class _Client:
    """What lives on the engine's loop.

    Attributes:
        answered_at: when the server last answered anything, on the loop's clock; one that never did
            is not waited for.
    """

    session: aiohttp.ClientSession
    window: asyncio.Semaphore
    gate: _Gate
    answered_at: float = -math.inf


class _Gate:
    """Holds back all senders until a moment that the server named."""

    def __init__(self) -> None:
        self._open_at = 0.0

    def close(self, seconds: float) -> None:
        self._open_at = max(self._open_at, asyncio.get_running_loop().time() + seconds)

    async def wait(self) -> None:
        while (left := self._open_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)
