"""A server on loopback that sends, for each path, exactly the bytes that a test wrote down."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

Script = Iterable[bytes | float | None]
"""Bytes to send, seconds to wait, None to hang up."""


class Turns:
    """One script for the first request, the next for the second, the last for all others."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)

    def __iter__(self) -> Iterator[bytes | float | None]:
        return iter(self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0])


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """One final answer with its length."""
    return head(status, f"Content-Length: {len(body)}", *headers) + body


def head(status: str, *headers: str) -> bytes:
    """A status line and headers, which may hold letters beyond ASCII (sent as UTF-8)."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode()


def chunked(body: bytes, size: int = 700) -> bytes:
    """A body in chunks, without the end of its trailers."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n"


class ScriptedServer:
    """Keeps every connection open until a script hangs up; counts connections and requests."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self.scripts = dict(scripts)
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}{path}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while request := lines.readline():
                    while lines.readline() not in (b"\r\n", b""):
                        pass
                    path = request.split()[1].decode()
                    self.requests[path] += 1
                    for step in self.scripts.get(path, (answer(b"", status="404 Not Found"),)):
                        if step is None:
                            return
                        if isinstance(step, float):
                            time.sleep(step)
                        else:
                            connection.sendall(step)
            except OSError:
                return


@contextmanager
def scripted_server(scripts: Mapping[str, Script]) -> Iterator[ScriptedServer]:
    """A running server; further scripts may be added while it runs."""
    server = ScriptedServer(scripts)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.close()
