"""One small HTTP/1.1 server on loopback that costs little itself, in a process of its own.

    python -m pipelines.bench.common.loopback files FOLDER
    python -m pipelines.bench.common.loopback captioner DELAY_SECONDS

    python -m pipelines.bench.common.loopback telling DELAY_SECONDS

prints its port and serves the files of a folder by name, or a caption to every OpenAI request after
a fixed delay, any number at a time: one to all, or (telling) one that is another for another
request and the same for the same. A request's body is counted off and never kept. As it runs apart,
its time is not a client's; a captioner's path /work tells what it did so far (`Work`).
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

from pipelines.bench.common.children import tied

CAPTION = "A small red house stands beside a quiet road under a pale evening sky."
MODEL = "slow-captioner"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_WORDS = "lake river meadow forest garden bridge tower church barn fence hill field market school"
_NOUNS = [*_WORDS.split(), "farm", "mill"]


@dataclass(frozen=True)
class Work:
    """What a captioner did since its start."""

    cpu_seconds: float
    answers: int
    """Captions given."""
    seconds: float
    """From the first of them to the last."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the files of `folder` for the length of a `with` block; yields the URL."""
    with _server("files", folder) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def slow_captioner(delay: float, telling: bool = False) -> Iterator[int]:
    """Serve captions after `delay` seconds for the length of a `with` block; yields the port.

    Args:
        telling: captions differ from request to request; else all are CAPTION.
    """
    with _server("telling" if telling else "captioner", delay) as port:
        yield port


def work(port: int) -> Work:
    """What the captioner at `port` did so far."""
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/work")
        return Work(**json.loads(connection.getresponse().read()))


def bare_rate(port: int, bodies: Sequence[bytes], in_flight: int) -> float:
    """Answers a second to ready-made requests over `in_flight` connections, answers only counted.

    What it reaches is the limit of the server, the loopback and the machine.
    """

    async def connection(requests: Iterator[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:  # all connections take from one source
            writer.write(request)
            length = _LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(int(length[1]) if length else 0)
        writer.close()

    async def rate() -> float:
        requests = iter([_request(body) for body in bodies])
        started = time.perf_counter()
        await asyncio.gather(*(connection(requests) for _ in range(in_flight)))
        return len(bodies) / (time.perf_counter() - started)

    return asyncio.run(rate())


def _request(body: bytes) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _server(kind: str, what: object) -> Iterator[int]:
    command = [sys.executable, "-m", "pipelines.bench.common.loopback", kind, what]
    server = subprocess.Popen(tied(command), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


# ---- the server's own process -------------------------------------------------------------------


Answer = Callable[[bytes, int], bytes]
"""Head of a request and checksum of its body -> response."""


class _Connection(asyncio.BufferedProtocol):
    """One connection; requests follow one another on it."""

    def __init__(self, answer: Answer, delay: float, telling: bool) -> None:
        self._answer, self._delay, self._telling = answer, delay, telling
        self._buffer = memoryview(bytearray(1 << 18))
        self._received = self._head = b""
        self._left = 0  # bytes of the present body still to come
        self._sum = 0  # its checksum, where captions differ

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left:
            self._left -= nbytes
            if self._telling:
                self._sum = zlib.crc32(self._buffer[:nbytes], self._sum)
        else:
            self._received += self._buffer[:nbytes]
            self._head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            self._received = b""
            length = _LENGTH.search(self._head)
            self._left = int(length[1]) - len(rest) if length else 0
            self._sum = zlib.crc32(rest) if self._telling else 0
        if self._left == 0:
            wait = self._delay if self._head.startswith(b"POST") else 0.0
            asyncio.get_running_loop().call_later(wait, self._write, self._head, self._sum)

    def _write(self, head: bytes, checksum: int) -> None:
        answer = self._answer(head, checksum)
        if not self._transport.is_closing():
            self._transport.write(answer)
            if b"connection: close" in head.lower():
                self._transport.close()


def _response(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _file(folder: Path, head: bytes, checksum: int) -> bytes:
    path = folder / head.split(b" ", 2)[1].decode("latin-1").rsplit("/", 1)[-1]
    if not path.is_file():
        return _response(b"", status="404 Not Found")
    return _response(path.read_bytes(), "image/jpeg")


def _completion(caption: str) -> bytes:
    message = {"role": "assistant", "content": caption}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 600, "completion_tokens": 16}
    return _response(json.dumps({"choices": [choice], "usage": usage}).encode())


class _Captioner:
    def __init__(self, telling: bool) -> None:
        self._answered: list[float] = []
        self._caption = None if telling else _completion(CAPTION)

    def __call__(self, head: bytes, checksum: int) -> bytes:
        if head.startswith(b"GET /work"):
            times = self._answered or [0.0]
            done = Work(time.process_time(), len(self._answered), times[-1] - times[0])
            return _response(json.dumps(asdict(done)).encode())
        if head.startswith(b"GET "):
            return _response(json.dumps({"data": [{"id": MODEL}]}).encode())
        self._answered.append(time.perf_counter())
        if self._caption is not None:
            return self._caption
        nouns = ", a ".join(_NOUNS[checksum >> shift & 15] for shift in range(0, 32, 4))
        return _completion(f"A house stands between a {nouns} and a road.")


async def _serve(kind: str, what: str) -> None:
    telling = kind == "telling"
    answer = partial(_file, Path(what)) if kind == "files" else _Captioner(telling)
    delay = 0.0 if kind == "files" else float(what)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(answer, delay, telling), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
