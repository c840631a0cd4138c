"""An OpenAI-compatible server that answers after a fixed delay and costs next to nothing itself.

`python -m pipelines.bench.slow_captioner DELAY_MS` prints its port. It counts a request's bytes
without keeping them and answers any number at a time, so that what is measured is the client. It
runs in a process of its own; the path /work tells what it did so far (see `Work`).
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection

from pipelines.children import tied

CAPTION = "A small red house stands beside a quiet road under a pale evening sky."
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_BUFFER = 1 << 18


@dataclass(frozen=True)
class Work:
    """What a server did since its start.

    Attributes:
        cpu_seconds: of its process.
        answers: captions given.
        seconds: from the first of them to the last.
    """

    cpu_seconds: float
    answers: int
    seconds: float


def answer_bytes(body: bytes) -> bytes:
    """A whole HTTP response of status 200."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _completion() -> bytes:
    message = {"role": "assistant", "content": CAPTION}
    return answer_bytes(
        json.dumps(
            {
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 600, "completion_tokens": 16},
            }
        ).encode()
    )


class _Connection(asyncio.BufferedProtocol):
    """One connection; requests follow one another on it."""

    _answer = _completion()

    def __init__(self, delay: float, answered: list[float]) -> None:
        self._delay = delay
        self._answered = answered  # when each caption was given; shared by all connections
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_BUFFER))
        self._head = b""
        self._left = 0  # bytes of the present body still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left:
            self._left -= nbytes
            if self._left == 0:
                self._complete()
            return
        self._head += self._buffer[:nbytes]
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not found:
            return
        self._head = b""
        length = _LENGTH.search(head)
        self._left = int(length.group(1)) - len(rest) if length else 0
        if head.startswith(b"GET /work "):
            self._transport.write(answer_bytes(self._work()))
        elif head.startswith(b"GET "):
            self._transport.write(answer_bytes(b'{"data": [{"id": "slow-captioner"}]}'))
        elif self._left == 0:
            self._complete()

    def _complete(self) -> None:
        if self._delay:
            self._loop.call_later(self._delay, self._write)
        else:
            self._write()

    def _work(self) -> bytes:
        times = self._answered or [0.0]
        work = Work(time.process_time(), len(self._answered), times[-1] - times[0])
        return json.dumps(asdict(work)).encode()

    def _write(self) -> None:
        self._answered.append(self._loop.time())
        if not self._transport.is_closing():
            self._transport.write(self._answer)


class SlowCaptioner:
    """A running server. `port` on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def work(self) -> Work:
        """What it did so far."""
        connection = HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("GET", "/work")
            return Work(**json.loads(connection.getresponse().read()))
        finally:
            connection.close()


@contextmanager
def slow_captioner(delay: float) -> Iterator[SlowCaptioner]:
    """Serve from another process for the length of a `with` block; `delay` in seconds."""
    command = [sys.executable, "-m", "pipelines.bench.slow_captioner", str(1000 * delay)]
    server = subprocess.Popen(tied(command), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield SlowCaptioner(int(server.stdout.readline()))
    finally:
        server.terminate()
        server.wait()


async def _serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    answered: list[float] = []
    server = await loop.create_server(
        lambda: _Connection(delay, answered), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) / 1000))
