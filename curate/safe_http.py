"""HTTP for URLs that strangers wrote: one GET that is bounded in every direction.

`SafeOpener` stands in for urllib's opener under img2dataset. It speaks http and https only, checks
every hop of a redirect, resolves a name once and connects to the very address that it checked (a
name that resolves anew cannot slip in an internal address), and limits bytes, redirects and the
total time of a URL, however slowly its bytes trickle. It says who it is, ignores the environment's
proxies, and obeys X-Robots-Tag. What goes wrong is raised as a `FailureError` with our reason.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import urljoin

from curate.addresses import Resolver, lookup
from curate.reasons import FailureError, Reason
from curate.robots_header import disallowing_directive
from curate.urls import Target, parse_url
from curate.wire import Deadline, TimedSocket

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAMED_STATUS = {
    403: Reason.HTTP_403,
    404: Reason.HTTP_404,
    410: Reason.HTTP_410,
    429: Reason.HTTP_429,
}
_FIRST_PAUSE = 0.5  # seconds before the first retry, doubled before each further one


@dataclass(frozen=True)
class HttpLimits:
    """What one URL may cost, and what it may reach."""

    timeout: float = 10.0
    """Seconds that one connect or one read may take."""
    total_timeout: float = 30.0
    """Seconds for the URL as a whole: redirects, retries and body."""
    max_bytes: int = 20_000_000
    max_redirects: int = 5
    retries: int = 1
    """Further tries after an error that may pass."""
    user_agent: str = "CaptionLab"
    disallowed_directives: frozenset[str] = field(default_factory=frozenset)
    allow_private: bool = False
    allowed_networks: tuple[str, ...] = ()
    """Networks such as "10.1.0.0/16" that are allowed although they are private."""


class Body:
    """A fetched body, in the shape that img2dataset reads: a context manager with `.read()`."""

    def __init__(self, content: bytes, headers: Message) -> None:
        self._content = content
        self.headers = headers

    def read(self) -> bytes:
        """The whole body."""
        return self._content

    def __enter__(self) -> Body:
        """Nothing is open: the connection was closed when the body was complete."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to close."""


class SafeOpener(urllib.request.OpenerDirector):
    """An opener for `urllib.request.install_opener`; safe to use from many threads."""

    def __init__(
        self,
        limits: HttpLimits,
        resolve: Callable[[str, int], list[str]] = lookup,
    ) -> None:
        """`resolve` maps (host, port) to addresses; the default asks the system's resolver."""
        super().__init__()
        self.limits = limits
        self._resolver = Resolver(resolve, limits.allow_private, limits.allowed_networks)
        self._tls = ssl.create_default_context()
        self._agent_token = limits.user_agent.split("/")[0].split(" ")[0].lower()

    def open(  # type: ignore[override]
        self, fullurl: str | urllib.request.Request, data: object = None, timeout: object = None
    ) -> Body:
        """GET a URL; only the URL of a Request counts, its headers (a false User-Agent) do not.

        Raises:
            FailureError: with one of `curate.reasons`.
        """
        url = fullurl.full_url if isinstance(fullurl, urllib.request.Request) else fullurl
        return self.fetch(url)

    def fetch(self, url: str) -> Body:
        """GET `url`, trying again after an error that may pass while the total time lasts.

        Raises:
            FailureError: with one of `curate.reasons`.
        """
        deadline = Deadline(self.limits.timeout, self.limits.total_timeout)
        pause = _FIRST_PAUSE
        for tries_left in reversed(range(self.limits.retries + 1)):
            try:
                return self._follow(url, deadline)
            except FailureError as error:
                may_try = tries_left and error.failure.reason.may_pass
                if not may_try or deadline.remaining() <= pause:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _follow(self, url: str, deadline: Deadline) -> Body:
        for _ in range(self.limits.max_redirects + 1):
            answer = self._get(parse_url(url), deadline)
            if isinstance(answer, Body):
                return answer
            url = urljoin(url, answer)
        raise FailureError(Reason.TOO_MANY_REDIRECTS, f"more than {self.limits.max_redirects}")

    def _get(self, target: Target, deadline: Deadline) -> Body | str:
        """One exchange: the body, or the Location of a redirect."""
        try:
            connection = self._connect(target, deadline)
            try:
                connection.sendall(self._request(target))
                response = http.client.HTTPResponse(connection, method="GET")  # type: ignore[arg-type]
                try:
                    response.begin()
                    return self._answer(response)
                finally:
                    response.close()
            finally:
                connection.close()
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

    def _connect(self, target: Target, deadline: Deadline) -> TimedSocket:
        addresses = self._resolver.allowed_addresses(target.host, target.port, deadline)
        problem: OSError | None = None
        for address in addresses:
            try:
                plain = socket.create_connection((address, target.port), timeout=deadline.step())
            except OSError as error:
                problem = error
                continue
            if not target.tls:
                return TimedSocket(plain, deadline)
            try:
                plain.settimeout(deadline.step())
                return TimedSocket(
                    self._tls.wrap_socket(plain, server_hostname=target.host), deadline
                )
            except BaseException:
                plain.close()
                raise
        assert problem is not None
        raise problem

    def _request(self, target: Target) -> bytes:
        lines = (
            f"GET {target.path} HTTP/1.1",
            f"Host: {target.host_header}",
            f"User-Agent: {self.limits.user_agent}",
            "Accept: image/*,*/*;q=0.5",
            "Accept-Encoding: identity",
            "Connection: close",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _answer(self, response: http.client.HTTPResponse) -> Body | str:
        status, limit = response.status, self.limits.max_bytes
        location = response.headers.get("Location")
        if status in _REDIRECTS and location:
            return location
        if status != http.client.OK:
            raise FailureError(_status_reason(status), f"HTTP {status} {response.reason}")
        directive = disallowing_directive(
            response.headers.get_all("X-Robots-Tag", []),
            self._agent_token,
            self.limits.disallowed_directives,
        )
        if directive is not None:
            raise FailureError(Reason.DISALLOWED_BY_HEADER, directive)
        announced = response.length
        if announced is not None and announced > limit:
            raise FailureError(Reason.TOO_LARGE, f"{announced:,} bytes announced")
        content = response.read(limit + 1)
        if len(content) > limit:
            raise FailureError(Reason.TOO_LARGE, f"more than {limit:,} bytes")
        if announced is not None and len(content) < announced:
            raise FailureError(Reason.INCOMPLETE_BODY, f"{len(content):,} of {announced:,} bytes")
        if not content:
            raise FailureError(Reason.EMPTY_BODY)
        return Body(content, response.headers)


def _status_reason(status: int) -> Reason:
    if status in _NAMED_STATUS:
        return _NAMED_STATUS[status]
    if 400 <= status < 500:
        return Reason.HTTP_4XX
    if 500 <= status < 600:
        return Reason.HTTP_5XX
    return Reason.HTTP_OTHER
