"""A small HTTP server on loopback that costs little itself: `python -m pipelines.bench.loopback`.

Serves the files of one folder by name, keeps connections open, and prints its port. It runs in a
process of its own, so that its time is not counted as a client's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.children import tied

_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        name = head.split(b" ", 2)[1].decode("latin-1").rsplit("/", 1)[-1]
        path = self._folder / name
        if not name or not path.is_file():
            self._transport.write(_MISSING)
        else:
            body = path.read_bytes()
            header = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}"
            self._transport.write(header.encode() + b"\r\n\r\n" + body)
        if b"connection: close" in head.lower():
            self._transport.close()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve `folder` from another process for the length of a `with` block; yields the URL."""
    command = [sys.executable, "-m", "pipelines.bench.loopback", str(folder)]
    server = subprocess.Popen(tied(command), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


async def _serve(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(folder), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
