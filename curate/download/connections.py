"""Connections to hosts that strangers named: to checked addresses only, kept for the next URL."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from curate.base.errors import ConfigError
from curate.download.addresses import Resolver
from curate.download.urls import Target
from curate.download.wire import Answer, Connection, Deadline

_IDLE_SECONDS = 4.0  # many servers close an idle connection after five
_MOST_IDLE = 128  # connections kept by one client, over all hosts
# A kept connection rests before its next request, so that bytes which nobody asked for have come
# and show themselves before they can pass for its answer.
_REST_SECONDS = 0.005
_MOST_DISTRUSTED = 20_000  # remembered by one client

_Place = tuple[bool, str, int]


class Connections:
    """Opens, keeps and reuses connections. Safe to use from many threads."""

    def __init__(
        self,
        resolve: Callable[[str, int], list[str]],
        allow_private: bool,
        allowed_networks: tuple[str, ...],
        proxy: str | None = None,
    ) -> None:
        """Nothing is opened yet.

        Raises:
            ConfigError: `proxy` is not http://HOST:PORT.
        """
        self._resolver = Resolver(resolve, allow_private, allowed_networks)
        self._tls: ssl.SSLContext | None = None  # reads all root certificates: made when needed
        self._proxy = _Proxy(proxy) if proxy else None
        self._idle: OrderedDict[_Place, list[Connection]] = OrderedDict()
        self._idle_count = 0
        self._distrusted: set[_Place] = set()  # hosts that sent what nobody had asked for
        self._lock = threading.Lock()

    def take(self, target: Target, deadline: Deadline) -> Connection:
        """A connection to the target's host, an open one if there is a fresh one.

        Raises:
            FailureError: dns or private_address.
            OSError: nobody answers, or the TLS handshake fails.
        """
        while (kept := self._pop(_place(target))) is not None:
            idle = time.monotonic() - kept.idle_since
            if idle < _REST_SECONDS:
                time.sleep(_REST_SECONDS - idle)
            if idle < _IDLE_SECONDS and self._is_quiet(target, kept):
                kept.renew(deadline)
                return kept
            kept.close()
        return self.open(target, deadline)

    def open(self, target: Target, deadline: Deadline) -> Connection:
        """A new connection to the target's host; raises as `take` does."""
        return Connection(self._connect(target, deadline), deadline)

    def keep(self, target: Target, connection: Connection) -> None:
        """Keep a connection for the next URL of its host; the oldest one makes room.

        Its last answer must have been read to the end. Connections of a host that ever sent more
        than its answers are closed.
        """
        connection.idle_since = time.monotonic()
        place = _place(target)
        if not self._is_quiet(target, connection):
            connection.close()
            return
        with self._lock:
            self._idle.setdefault(place, []).append(connection)
            self._idle.move_to_end(place)
            self._idle_count += 1
            oldest = self._pop_oldest() if self._idle_count > _MOST_IDLE else None
        if oldest is not None:
            oldest.close()

    def close(self) -> None:
        """Close every kept connection."""
        with self._lock:
            kept = [connection for some in self._idle.values() for connection in some]
            self._idle.clear()
            self._idle_count = 0
        for connection in kept:
            connection.close()

    def request_target(self, target: Target) -> str:
        """What stands in the request line: a proxy for plain http wants the whole URL."""
        return target.url if self._proxy and not target.tls else target.path

    def proxy_headers(self, target: Target) -> tuple[str, ...]:
        """Header lines for the proxy, where it reads them."""
        return self._proxy.headers if self._proxy and not target.tls else ()

    def _is_quiet(self, target: Target, connection: Connection) -> bool:
        """Whether nothing came after the last answer, on this connection or an earlier one."""
        place, unread = _place(target), connection.unread()
        with self._lock:
            if unread:
                if len(self._distrusted) >= _MOST_DISTRUSTED:
                    self._distrusted.clear()
                self._distrusted.add(place)
            return unread is None and place not in self._distrusted

    def _pop(self, place: _Place) -> Connection | None:
        with self._lock:
            some = self._idle.get(place)
            if not some:
                return None
            connection = some.pop()  # the one used last is the least likely to be closed
            if not some:
                del self._idle[place]
            self._idle_count -= 1
            return connection

    def _pop_oldest(self) -> Connection:
        place, some = next(iter(self._idle.items()))
        connection = some.pop(0)
        if not some:
            del self._idle[place]
        self._idle_count -= 1
        return connection

    def _connect(self, target: Target, deadline: Deadline) -> socket.socket:
        if self._proxy is not None:
            # The proxy resolves names, so only an address that stands in the URL can be checked.
            self._resolver.refuse_private_literal(target.host)
            plain = self._proxy.connect(target, deadline)
        else:
            addresses = self._resolver.allowed_addresses(target.host, target.port, deadline)
            plain = connect_any(addresses, target.port, deadline)
        if not target.tls:
            return plain
        try:
            plain.settimeout(deadline.step())
            return self._context().wrap_socket(plain, server_hostname=target.host)
        except BaseException:
            plain.close()
            raise

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls


class _Proxy:
    """An HTTP proxy: asked for the whole URL for http, and to CONNECT for https."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or port is None or parts.scheme != "http":
            raise ConfigError(f"The proxy {url!r} is not of the form http://HOST:PORT.")
        self._host, self._port = host, port
        self.headers: tuple[str, ...] = ()
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
            self.headers = (f"Proxy-Authorization: Basic {token}",)

    def connect(self, target: Target, deadline: Deadline) -> socket.socket:
        """A socket through the proxy; for https a tunnel to the target stands."""
        plain = socket.create_connection((self._host, self._port), timeout=deadline.step())
        if not target.tls:
            return plain
        host = f"[{target.host}]" if ":" in target.host else target.host
        place = f"{host}:{target.port}"
        lines = (f"CONNECT {place} HTTP/1.1", f"Host: {place}", *self.headers)
        try:
            tunnel = Connection(plain, deadline)
            tunnel.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
            answer = Answer(tunnel, "CONNECT")
            if answer.status != http.client.OK:
                raise ConnectionError(f"the proxy answers HTTP {answer.status} {answer.reason}")
            if tunnel.unread():
                raise ConnectionError("the proxy sends more than its answer")
        except BaseException:
            plain.close()
            raise
        return plain


def _place(target: Target) -> _Place:
    return (target.tls, target.host, target.port)


def connect_any(addresses: list[str], port: int, deadline: Deadline) -> socket.socket:
    """A socket to the first address that takes one; OSError, the last one's, where none does."""
    problem: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=deadline.step())
        except OSError as error:
            problem = error
    assert problem is not None  # there is at least one address
    raise problem
