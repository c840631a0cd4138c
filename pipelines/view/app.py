"""The page's server: the routes of every feature, behind one guard.

The page shows what strangers wrote and writes into a dataset, so nothing from elsewhere may speak
to it: a request names this server as its host (a name that was rebound to this address does not),
a write carries the token that only the page knows, and the page loads nothing but itself.
"""

from __future__ import annotations

import hmac
import ipaddress
import platform
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from curate.base.errors import CaplabError, ConfigError
from pipelines.terminal.failures import in_words
from pipelines.view import about, failed, pictures, rows, rule, search
from pipelines.view.answers import answer
from pipelines.view.opened import Opened
from pipelines.view.record import captions, copies, marks, record
from pipelines.view.runs import run, study
from pipelines.view.tables import unreadable

STATIC = Path(__file__).parent / "static"
TOKEN_HEADER = "X-Caplab-Token"
LONGEST_QUERY = 16_384
"""Bytes. A rule of a selection is a few hundred."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_TYPES |= {".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

# Each gives the routes of one feature.
FEATURES: tuple[Callable[[Opened], Iterable[Route]], ...] = (
    about.routes,
    rows.routes,
    pictures.routes,
    failed.routes,
    rule.routes,
    record.routes,
    copies.routes,
    captions.routes,
    marks.routes,
    search.routes,
    run.routes,
    study.routes,
)


def build_app(opened: Opened, token: str, hosts: Iterable[str] | None = None) -> Starlette:
    """The server of one opened directory.

    Args:
        token: what a write has to carry; the page has it from index.html.
        hosts: the values of the header Host that are answered; None answers what
            `local_or_numbered` lets pass, for a server that was opened to other machines.
    """
    routes = [Route("/", _index(token)), Route("/static/{name:path}", _static())]
    for feature in FEATURES:
        routes += feature(opened)

    def damaged(request: Request, error: Exception) -> Response:
        return answer({"error": unreadable(opened.directory, error)}, 409)

    damage = dict.fromkeys(_OF_FILES, damaged)
    app = Starlette(routes=routes, exception_handlers={**_FAILURES, **damage})
    allowed = None if hosts is None else frozenset(hosts)
    app.add_middleware(_Guard, token=token, hosts=allowed)
    return app


def loopback_hosts(port: int) -> list[str]:
    """The values of Host by which a browser of this machine calls a server of `port`."""
    return [f"{name}:{port}" for name in LOOPBACK] + (list(LOOPBACK) if port == 80 else [])


def local_or_numbered(host: str) -> bool:
    """Whether `host` is an address in numbers, or this machine's own name.

    An attacker's name may lead to any address, but it is none of these.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        own = platform.node().lower()
        return name != "" and name in ("localhost", own, own.partition(".")[0])


class _Guard:
    """Refuses what does not come from the page itself, and adds the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str] | None) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # a websocket is refused by silence

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        answers = answer({"error": refusal[1]}, refusal[0]) if refusal else self._app
        await answers(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence, where the request is not the page's own."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        known = local_or_numbered(host) if self._hosts is None else host in self._hosts
        if not known or len(headers.getlist("host")) != 1:
            return 421, "This page is not served under that name; open the address it printed."
        if len(scope.get("query_string", b"")) > LONGEST_QUERY:
            return 414, f"A query may have {LONGEST_QUERY:,} bytes."
        method = scope["method"]
        foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if method in ("GET", "HEAD"):
            # Another page may link here, and nothing more.
            if foreign and headers.get("sec-fetch-mode") != "navigate":
                return 403, "Another page may not read this one."
            return None
        if method != "POST":
            return 405, "This page is read with GET and written with POST."
        if foreign or headers.get("origin", "") != f"{scope['scheme']}://{host}":
            return 403, "A write has to come from this page."
        if not hmac.compare_digest(
            headers.get(TOKEN_HEADER, "").encode("utf-8", "replace"), self._token.encode()
        ):
            return 403, "The page is of an earlier start; load it again."
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "A write is JSON."
        return None


def _index(token: str) -> Callable[[Request], Response]:
    html = (STATIC / "index.html").read_text("utf-8").replace("{{token}}", token)
    return lambda request: Response(html, media_type="text/html")


def _static() -> Callable[[Request], Response]:
    # The names are fixed at the start: what is asked for is looked up and never made a path.
    files = {
        path.relative_to(STATIC).as_posix(): path
        for path in STATIC.rglob("*")
        if path.suffix in _TYPES and path.name != "index.html"
    }

    def endpoint(request: Request) -> Response:
        path = files.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type=_TYPES[path.suffix])

    return endpoint


def _of_the_person(request: Request, error: Exception) -> Response:
    return answer({"error": str(error)}, 400 if isinstance(error, ConfigError) else 409)


def _by_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "There is no such place.", 405: "That place is not asked in this way."}
    sentence = words.get(error.status_code, error.detail)
    return answer({"error": sentence}, error.status_code)


def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette answers this one outside of the guard, which would have added the headers.
    response = answer({"error": f"an unexpected {in_words(error)}."}, 500)
    response.headers.update({**_HEADERS, "Cache-Control": "no-store"})
    return response


# What a file that is damaged, cut or gone is read with; a disk that is full is told by its name.
_OF_FILES = (duckdb.Error, OSError, sqlite3.Error, pa.ArrowException)
_FAILURES = {CaplabError: _of_the_person, HTTPException: _by_status, Exception: _unexpected}
