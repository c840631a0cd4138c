"""HTTP for URLs that strangers wrote: one GET that is bounded in every direction.

`SafeClient` speaks http and https only, checks every hop of a redirect, resolves a name once and
connects to the very address that it checked (a name that resolves anew cannot slip in an internal
address), and limits bytes, redirects and the total time of a URL, however slowly its bytes trickle.
It says who it is, ignores the environment's proxies, keeps connections open for a host's next URL
(only those whose last answer was read to its end), and obeys X-Robots-Tag. What goes wrong is
raised as a `FailureError` with our reason.
"""

from __future__ import annotations

import copy
import http.client
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urljoin

from curate.base.reasons import FailureError, Reason
from curate.download.addresses import lookup
from curate.download.connections import Connections
from curate.download.content_coding import unpacked
from curate.download.hosts import retry_after
from curate.download.robots import disallowing_directive
from curate.download.urls import Target, parse_url
from curate.download.wire import Answer, Connection, Deadline

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAMED_STATUS = {
    403: Reason.HTTP_403,
    404: Reason.HTTP_404,
    410: Reason.HTTP_410,
    429: Reason.HTTP_429,
}
# 203 is a proxy's copy (RFC 9110, section 15.3.4); 206 counts only where it is the whole.
_WITH_PICTURE = frozenset({200, 203, 206})
_WHOLE_RANGE = re.compile(r"bytes\s+0-(\d{1,18})/(\d{1,18})", re.ASCII | re.IGNORECASE)
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True)
class HttpLimits:
    """What one URL may cost, and what it may reach."""

    timeout: float = 10.0
    """Seconds that one connect or one read may take."""
    total_timeout: float = 30.0
    """Seconds for the URL as a whole: redirects, retries and body."""
    max_bytes: int = 20_000_000
    max_redirects: int = 5
    user_agent: str = "CaptionLab"
    disallowed_directives: frozenset[str] = field(default_factory=frozenset)
    allow_private: bool = False
    allowed_networks: tuple[str, ...] = ()
    """Networks such as "10.1.0.0/16" that are allowed although they are private."""
    proxy: str | None = None
    """http://HOST:PORT of a proxy that all requests go through."""

    @property
    def agent_token(self) -> str:
        """The name that robots.txt and X-Robots-Tag know us by, lower case."""
        return self.user_agent.split("/")[0].split(" ")[0].lower()


class HttpFailureError(FailureError):
    """A failed request, with what the server asked of us."""

    retry_after: float | None = None
    """Seconds that the server asks to wait."""


@dataclass(frozen=True)
class Body:
    """A fetched body."""

    content: bytes  # unpacked
    headers: Mapping[str, str]


class SafeClient:
    """A client for many threads; holds open connections until `close`."""

    def __init__(
        self,
        limits: HttpLimits,
        resolve: Callable[[str, int], list[str]] = lookup,
    ) -> None:
        """`resolve` maps (host, port) to addresses; the default asks the system's resolver."""
        self.limits = limits
        self._connections = Connections(
            resolve, limits.allow_private, limits.allowed_networks, limits.proxy
        )

    def variant(self, **limits: Any) -> SafeClient:
        """A client with some other limits that shares this one's names and connections."""
        twin = copy.copy(self)
        twin.limits = replace(self.limits, **limits)
        return twin

    def deadline(self, total: float | None = None) -> Deadline:
        """A new deadline; `total` seconds, by default those of the limits."""
        return Deadline(self.limits.timeout, self.limits.total_timeout if total is None else total)

    def fetch(self, url: str, deadline: Deadline | None = None) -> Body:
        """GET `url` once, through all its redirects.

        Raises:
            FailureError: with one of `curate.base.reasons`.
        """
        target = parse_url(url)
        deadline = deadline or self.deadline()
        for _ in range(self.limits.max_redirects + 1):
            answer = self.hop(target, deadline)
            if isinstance(answer, Body):
                return answer
            target = answer
        raise FailureError(Reason.TOO_MANY_REDIRECTS, f"more than {self.limits.max_redirects}")

    def hop(self, target: Target, deadline: Deadline) -> Body | Target:
        """One exchange: the body, or where a redirect leads.

        Raises:
            FailureError: with one of `curate.base.reasons`.
        """
        try:
            connection = self._connections.take(target, deadline)
            reused = connection.answers > 0
            try:
                return self._exchange(connection, target)
            except (ConnectionError, http.client.HTTPException):
                # A kept connection may have been closed while the request was on its way, and what
                # came over it may belong to an earlier request; neither says anything about this
                # URL. RFC 9112, section 9.3.1.
                if not reused:
                    raise
            return self._exchange(self._connections.open(target, deadline), target)
        # The order matters: a TimeoutError is an OSError, RemoteDisconnected is both of the last.
        except TimeoutError as error:
            raise FailureError(Reason.TIMEOUT, error) from error
        except ssl.SSLError as error:
            raise FailureError(Reason.TLS, error) from error
        except ConnectionRefusedError as error:
            raise FailureError(Reason.CONNECTION_REFUSED, error) from error
        except OSError as error:
            raise FailureError(Reason.CONNECTION_LOST, error) from error
        except http.client.IncompleteRead as error:
            raise FailureError(Reason.INCOMPLETE_BODY, error) from error
        except (http.client.HTTPException, ValueError) as error:
            # ValueError: http.client lets int() speak about a broken chunk size.
            raise FailureError(Reason.BAD_RESPONSE, f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close every connection that is kept open."""
        self._connections.close()

    def _exchange(self, connection: Connection, target: Target) -> Body | Target:
        answer = None
        try:
            connection.sendall(self._request(target))
            answer = Answer(connection)
            if answer.status == http.client.REQUEST_TIMEOUT and connection.answers:
                # Said of the pause before the request, which it met on its way.
                raise ConnectionError("the server closes an idle connection")
            return self._outcome(answer, target)
        finally:
            # Only a connection whose answer was read to its end can carry another one.
            if answer is not None and answer.is_over():
                connection.answers += 1
                self._connections.keep(target, connection)
            else:
                connection.close()

    def _request(self, target: Target) -> bytes:
        lines = (
            f"GET {self._connections.request_target(target)} HTTP/1.1",
            f"Host: {target.host_header}",
            f"User-Agent: {self.limits.user_agent}",
            "Accept: image/*,*/*;q=0.5",
            "Accept-Encoding: identity",
            *self._connections.proxy_headers(target),
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _outcome(self, answer: Answer, target: Target) -> Body | Target:
        location = answer.headers.get("Location")
        if answer.status in _REDIRECTS and location:
            answer.drain()
            return parse_url(urljoin(target.url, _as_sent(location)))
        whole = _whole_length(answer)
        if answer.status not in _WITH_PICTURE or (answer.status == 206 and whole is None):
            said = f"HTTP {answer.status} {answer.reason}"
            if answer.status == 206:
                said += f", {answer.headers.get('Content-Range', 'no Content-Range')}"
            failure = HttpFailureError(_status_reason(answer.status), said)
            failure.retry_after = retry_after(answer.headers.get("Retry-After"))
            answer.drain()
            raise failure
        directive = disallowing_directive(
            answer.headers.get_all("X-Robots-Tag", []),
            self.limits.agent_token,
            self.limits.disallowed_directives,
        )
        if directive is not None:
            raise FailureError(Reason.DISALLOWED_BY_HEADER, directive)
        content = self._content(answer, whole)
        fields = answer.headers.get_all("Content-Encoding", [])
        content = unpacked(content, fields, self.limits.max_bytes)
        if not content:
            raise FailureError(Reason.EMPTY_BODY)
        return Body(content, answer.headers)  # type: ignore[arg-type]

    def _content(self, answer: Answer, whole: int | None) -> bytes:
        """The body as it came, at least a byte and at most `max_bytes`."""
        if answer.fault is not None:
            raise FailureError(Reason.BAD_RESPONSE, answer.fault)
        limit, announced = self.limits.max_bytes, answer.length
        if announced is not None and announced > limit:
            raise FailureError(Reason.TOO_LARGE, f"{announced:,} bytes announced")
        content = answer.read(limit + 1)
        if len(content) > limit:
            raise FailureError(Reason.TOO_LARGE, f"more than {limit:,} bytes")
        for wanted in (announced, whole):
            if wanted is not None and len(content) != wanted:
                raise FailureError(Reason.INCOMPLETE_BODY, f"{len(content):,} of {wanted:,} bytes")
        if not content:
            raise FailureError(Reason.EMPTY_BODY)
        return content


def _whole_length(answer: Answer) -> int | None:
    """Bytes of the whole file, where a 206 says that its range is all of it."""
    match = _WHOLE_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    whole = match is not None and int(match[1]) + 1 == int(match[2])
    return int(match[2]) if match is not None and whole and answer.status == 206 else None


def _as_sent(location: str) -> str:
    """A Location as the server wrote it: http.client reads the bytes of headers as Latin-1.

    Those that are no UTF-8 keep their value in quotes, as browsers do it.
    """
    sent = location.encode("latin-1")
    try:
        return sent.decode("utf-8")
    except UnicodeDecodeError:
        return quote(sent, safe=_ASCII)


def _status_reason(status: int) -> Reason:
    if status in _NAMED_STATUS:
        return _NAMED_STATUS[status]
    if 400 <= status < 500:
        return Reason.HTTP_4XX
    if 500 <= status < 600:
        return Reason.HTTP_5XX
    return Reason.HTTP_OTHER
