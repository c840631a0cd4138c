"""The client of an OpenAI-compatible server: chat requests, each asked until it has an outcome.

A bounded number of requests is in flight at any time. A server that is busy, broken or gone for a
while costs time and, in the end, the row; it never ends the run, and what is no text of a model (an
HTML error page, a JSON error with status 200) is never taken for one.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from curate.served.address import Server
from curate.served.loop_thread import LoopThread
from curate.served.outcome import CaptionOutcome
from curate.served.reply import (
    CONNECTION,
    CONTENT_FILTER,
    REFUSED,
    TIMEOUT,
    Reply,
    failure,
    read,
    understand,
)

T = TypeVar("T")

# Longer waits than this are a closed shop, not a busy one; the row's next try will tell.
_MAX_WAIT_SECONDS = 120.0
_CONNECT_SECONDS = 30.0
# A trial is as patient as a person who waits for it: a server may be busy, or just have started.
_TRIAL_ATTEMPTS = 3
_TRIAL_PATIENCE_SECONDS = 60.0


class ChatClient:
    """Asks one server, with connections that stay open; several threads may use it at once.

    `latency_seconds` of an outcome is the time of the request that gave it, waits not included.
    """

    def __init__(self, server: Server, in_flight: int = 64) -> None:
        """Nothing is asked yet.

        Args:
            in_flight: requests at any time.

        Raises:
            ConfigError: the variable that holds the server's key is not set.
        """
        self.server = server
        self._url = URL(server.address("chat/completions"), encoded=True)
        self._key = server.key()
        # When the server last answered anything; one that never did is not waited for.
        self._answered_at = -math.inf
        self._loop = LoopThread()
        self._loop.run(self._open(in_flight))
        self._loop.at_end(self._session.close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that calls `ask` to its end."""
        return self._loop.run(work)

    def close(self) -> None:
        """Close all connections; a client that is dropped closes them by itself."""
        self._loop.close()

    async def _open(self, in_flight: int) -> None:
        server = self.server
        connect = min(_CONNECT_SECONDS, server.timeout)
        self._window, self._gate = asyncio.Semaphore(in_flight), _Gate()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=server.timeout, sock_connect=connect),
            headers={**server.headers(), "Content-Type": "application/json"},
            # A server's cookies would tie rows to one another.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def ask(
        self,
        body: bytes,
        limit: int,
        size: tuple[int, int] | None = None,
        server: Server | None = None,
    ) -> CaptionOutcome:
        """Ask until there is a text, a lasting fault, or no more patience; on the client's loop.

        Args:
            body: of the request, JSON.
            limit: output tokens that it asks for at most.
            size: (width, height) of the picture in it, to be told in the outcome.
            server: patience of another kind, for a trial.
        """
        clock, server = asyncio.get_running_loop().time, server or self.server
        give_up_at = clock() + server.patience
        faults = tries = 0
        while True:
            await self._gate.wait()
            async with self._window:
                started = clock()
                reply = await self._post(body, size, limit)
                latency = clock() - started
            tries += 1
            if reply.gone:
                # Counted from the server's last answer and not for each row, or a million rows
                # would each wait for a server that was switched off.
                spent = clock() >= self._answered_at + server.patience
            else:
                self._answered_at = clock()
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
                self._gate.close(
                    min(pause if reply.wait is None else reply.wait, _MAX_WAIT_SECONDS)
                )
            else:
                await asyncio.sleep(pause)

    async def _post(self, body: bytes, size: tuple[int, int] | None, limit: int) -> Reply:
        """One try."""
        try:
            # A redirect could carry the key and the pictures to somewhere else.
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    return failure(f"http_{response.status}", _led_to(response), passing=False)
                raw = await read(response)
                wait = response.headers.get("Retry-After")
                return understand(response.status, wait, raw, size, self._key, limit)
        # The order matters: an aiohttp connect error may be a TimeoutError or an OSError as well.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return failure(CONNECTION, f"{type(error).__name__}: {error}", passing=True, gone=True)
        except TimeoutError:
            return failure(TIMEOUT, f"no answer within {self.server.timeout:g} s", passing=True)
        except (aiohttp.ClientError, OSError) as error:
            return failure(CONNECTION, f"{type(error).__name__}: {error}", passing=True)


def impatient(server: Server) -> Server:
    """The same server, asked as a person asks who waits for the answer: for a trial."""
    return replace(
        server,
        attempts=min(server.attempts, _TRIAL_ATTEMPTS),
        patience=min(server.patience, _TRIAL_PATIENCE_SECONDS),
    )


def trial_fault(server: Server, outcome: CaptionOutcome, sees: bool) -> str | None:
    """One sentence on a trial that gave no caption; None where it gave one, or a filter spoke."""
    error, place = outcome.error or "", f"The server at {server.base_url}"
    said = (outcome.detail or "it gives no reason").rstrip(".")
    if error in (CONTENT_FILTER, REFUSED):
        return None
    if error == CONNECTION:
        return f"No model answers at {server.base_url} ({said})."
    if error in ("http_401", "http_403"):
        return (
            f"{place} refuses access ({error[5:]}: {said}); name the environment variable with its "
            f"key with {server.prefix}api_key_env."
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


class _Gate:
    """Holds back all senders until a moment that the server named."""

    def __init__(self) -> None:
        self._open_at = 0.0

    def close(self, seconds: float) -> None:
        self._open_at = max(self._open_at, asyncio.get_running_loop().time() + seconds)

    async def wait(self) -> None:
        while (left := self._open_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)
