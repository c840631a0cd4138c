"""The least that a client can do: ready-made requests on raw connections, answers only counted.

What it reaches is the limit of the server and of the loopback, so that a benchmark can say that
the client which it measures is the slower part.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def request_bytes(body: bytes) -> bytes:
    """A whole HTTP request with a JSON body."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def bare_rate(port: int, bodies: Sequence[bytes], in_flight: int) -> float:
    """Answers a second over `in_flight` connections to a server on loopback."""
    return asyncio.run(_rate(port, [request_bytes(body) for body in bodies], in_flight))


async def _rate(port: int, requests: list[bytes], in_flight: int) -> float:
    loop = asyncio.get_running_loop()
    source = iter(requests)
    done = [loop.create_future() for _ in range(in_flight)]
    connections = []
    for future in done:
        _, connection = await loop.create_connection(
            lambda future=future: _Connection(source, future),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        connections.append(connection)
    started = time.perf_counter()
    for connection in connections:
        connection.send_next()
    await asyncio.gather(*done)
    return len(requests) / (time.perf_counter() - started)


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last one's answer is whole."""

    def __init__(self, source: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._source = source
        self._done = done
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send_next(self) -> None:
        request = next(self._source, None)
        if request is None:
            self._transport.close()
            self._done.set_result(None)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and length and len(rest) >= int(length.group(1)):
            self._received = b""
            self.send_next()
