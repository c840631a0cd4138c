"""A real HTTP server on loopback that misbehaves in every way that the downloader must survive."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote
from zlib import crc32

import numpy as np
from PIL import Image


def picture(width: int = 96, height: int = 64, kind: str = "JPEG", seed: int = 0) -> bytes:
    """A small picture with smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


class HostileHandler(BaseHTTPRequestHandler):
    """GET /NAME calls the method NAME; each is one way to behave."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.note(self)  # type: ignore[attr-defined]
        name = self.path.strip("/").split("/")[0].split("?")[0].replace(".", "_")
        behave: Callable[[], None] = getattr(self, f"be_{name}", self.be_missing)
        try:
            behave()
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self.server.under_way -= 1  # type: ignore[attr-defined]

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, location: str) -> None:
        self.answer(b"", 302, Location=location)

    def be_missing(self) -> None:
        self.answer(b"not here", 404)

    def be_good(self) -> None:
        last = self.path.rsplit("/", 1)[-1]
        seed = int(last) if last.isdigit() else 0
        self.answer(picture(seed=seed), Content_Type="image/jpeg")

    def be_kept(self) -> None:
        self.close_connection = False
        self.be_good()

    def be_kept_missing(self) -> None:
        self.close_connection = False
        self.be_missing()

    def be_kept_then_closed(self) -> None:
        # Says nothing of closing, and closes: the next request on this connection finds it gone.
        self.be_good()

    def be_kept_with_more(self) -> None:
        # An answer nobody asked for, waiting to pass as the next one's.
        self.close_connection = False
        self.be_good()
        self.be_missing()

    def be_robots_txt(self) -> None:
        rules: bytes | int = self.server.robots  # type: ignore[attr-defined]
        self.answer(b"", rules) if isinstance(rules, int) else self.answer(rules)

    def be_wait_seconds(self) -> None:
        first = self.server.requests[self.path] == 1  # type: ignore[attr-defined]
        self.answer(b"", 429, Retry_After="1") if first else self.be_good()

    def be_wait_date(self) -> None:
        first = self.server.requests[self.path] == 1  # type: ignore[attr-defined]
        when = formatdate(time.time() + 2, usegmt=True)
        self.answer(b"", 503, Retry_After=when) if first else self.be_good()

    def be_wait_an_hour(self) -> None:
        self.answer(b"", 429, Retry_After="3600")

    def be_file(self) -> None:
        folder: Path = self.server.folder  # type: ignore[attr-defined]
        self.answer((folder / unquote(self.path.removeprefix("/file/"))).read_bytes())

    def be_slow_good(self) -> None:
        time.sleep(0.3)
        self.be_good()

    def be_misnamed(self) -> None:
        self.answer(picture(), Content_Type="text/html")

    def be_chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = picture()
        for piece in (body[:100], body[100:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def be_error(self) -> None:
        self.answer(b"oops", 500)

    def be_forbidden(self) -> None:
        self.answer(b"no", 403)

    def be_gone(self) -> None:
        self.answer(b"", 410)

    def be_teapot(self) -> None:
        self.answer(b"", 418)

    def be_busy(self) -> None:
        self.answer(b"", 429)

    def be_nothing(self) -> None:
        self.answer(b"", 204)

    def be_once_busy(self) -> None:
        first = self.server.requests[self.path] == 1  # type: ignore[attr-defined]
        self.be_error() if first else self.be_good()

    def be_flaky(self) -> None:
        self.be_good() if self.server.healed else self.be_error()  # type: ignore[attr-defined]

    def be_moved(self) -> None:
        self.redirect("/good/7")

    def be_elsewhere(self) -> None:
        self.redirect(self.server.elsewhere)  # type: ignore[attr-defined]

    def be_loop(self) -> None:
        self.redirect("/loop")

    def be_to_file(self) -> None:
        self.redirect("file:///etc/hostname")

    def be_to_metadata(self) -> None:
        self.redirect("http://169.254.169.254/latest/meta-data")

    def be_to_other_loopback(self) -> None:
        self.redirect(f"http://127.0.0.2:{self.server.server_address[1]}/good")

    def be_html(self) -> None:
        self.answer(b"<!DOCTYPE html><p>Sign in to see this picture", Content_Type="image/jpeg")

    def be_empty(self) -> None:
        self.answer(b"", Content_Type="image/jpeg")

    def be_announces_much(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "99999999999")
        self.end_headers()

    def be_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(1 << 16))

    def be_trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def be_trickle_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def be_silent(self) -> None:
        time.sleep(3)

    def be_cut(self) -> None:
        body = picture()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])

    def be_half_picture(self) -> None:
        body = picture()
        self.answer(body[: len(body) // 2])

    def be_garbage(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.0\r\n")

    def be_hangs_up(self) -> None:
        self.connection.close()

    def be_noai(self) -> None:
        self.answer(picture(), X_Robots_Tag="noai, noimageai")

    def be_noai_for_others(self) -> None:
        self.answer(picture(), X_Robots_Tag="otherbot: noai")

    def be_noai_for_us(self) -> None:
        self.answer(picture(), X_Robots_Tag="captionlab: noai")

    def be_tiny(self) -> None:
        self.answer(picture(8, 8))

    def be_banner(self) -> None:
        self.answer(picture(900, 60))

    def be_bomb(self) -> None:
        # A PNG header that announces 60,000 x 60,000 pixels.
        body = bytearray(picture(kind="PNG"))
        body[16:24] = (60_000).to_bytes(4, "big") * 2
        body[29:33] = crc32(bytes(body[12:29])).to_bytes(4, "big")
        self.answer(bytes(body))


class HostileServer(ThreadingHTTPServer):
    """Counts the requests of each path and collects User-Agents."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path | None, address: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), HostileHandler)
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.user_agents: set[str] = set()
        self.robots: bytes | int = 404
        self.elsewhere = ""
        self.healed = False
        self.connections = 0
        self.under_way = 0
        self.most_under_way = 0
        self._noting = threading.Lock()

    def note(self, handler: BaseHTTPRequestHandler) -> None:
        """Count a request."""
        with self._noting:
            self.requests[handler.path] += 1
            self.times.setdefault(handler.path, []).append(time.monotonic())
            self.user_agents.add(handler.headers["User-Agent"])
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}/{path}"


@contextmanager
def hostile_server(
    folder: Path | None = None, address: str = "127.0.0.1"
) -> Iterator[HostileServer]:
    """A running server, with the files of `folder` under /file/; its threads end with the test."""
    server = HostileServer(folder, address)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
